"""The tasks `image.*`: base images, builds and retention."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import JSON, default_environment
from deploy.tasks.surface import task


@task(
    iterable=["names"],
    help={
        "names": "base image, such as haproxy:3.0-trixie (repeatable; default: all)",
        "force": "build them from Debian packages even if they exist",
    },
)
def bases(context: Context, names: list[str], force: bool = False) -> None:
    """Provide the base images: pull them, or build them from Debian packages.

    An image is built only if it cannot be pulled.
    """
    from deploy.images.bases import ensure_bases
    from deploy.machine.engine import ensure_engine

    ensure_engine()
    ensure_bases(names, force=force)


@task(
    help={
        "env": "environment with the tags and registries (default: local, which has no registry)",
        "promote": "environment whose image of this commit is used, if there is one",
        "metadata": "JSON file to write the result to; a CI step also gets it as outputs",
        **JSON,
    }
)
def build(
    context: Context, env: str = "local", promote: str = "", metadata: str = "", json: bool = False
) -> None:
    """Build the image of this checkout, tag it and push it to the environment's registries."""
    from pathlib import Path

    from deploy.environment.model import load_environment
    from deploy.machine.engine import ensure_engine
    from deploy.operations.candidates import build_candidate, promote_image
    from deploy.output.build_metadata import write_metadata
    from deploy.output.report import Report
    from deploy.secrets import load_secrets

    with Report(json=json) as report:
        environment = load_environment(env)
        secrets = load_secrets(environment, containers=False)
        found = None
        if promote:
            # No connection to its hosts is made, so their names may still be placeholders.
            earlier = load_environment(promote, placeholders=True)
            found = promote_image(environment, earlier, secrets, report.events)
        if found is None:
            ensure_engine(lambda text: report.events.emit("note", text))
            release = build_candidate(environment, secrets, report.events).release
        else:
            release = found.release
        report.show_image(release, built=found is None)
    if metadata:
        write_metadata(Path(metadata), release, env, built=found is None)


@task(
    help={
        "env": "environment with the registries (default: AMANI_ENV, or production)",
        "keep": "number of images of each kind to keep at any age (default: 5)",
        "dry_run": "list the expired images and delete none",
    }
)
def retention(context: Context, env: str = "", keep: int = 5, dry_run: bool = False) -> None:
    """Delete expired images: those of a commit after 90 days, those of staging after 30."""
    from deploy.environment.model import load_environment
    from deploy.errors import UsageError
    from deploy.operations.image_retention import delete_expired_images

    if keep < 1:
        raise UsageError(f"--keep={keep} is too small: keep at least 1")
    delete_expired_images(
        load_environment(env or default_environment()), keep=keep, dry_run=dry_run
    )
