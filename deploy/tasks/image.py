"""Images: bases and builds."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task


@task(
    positional=["names"],
    iterable=["names"],
    help={
        "names": "one of them, such as haproxy:3.0-trixie (may be repeated; default: all)",
        "force": "make them from Debian packages even where they are there",
    },
)
def bases(context: Context, names: list[str], force: bool = False) -> None:
    """Provide the base images: pulled, or made from Debian packages where Docker Hub is away."""
    from deploy.images.bases import ensure_bases
    from deploy.machine.engine import ensure_engine

    ensure_engine()
    ensure_bases(names, force=force)


@task(
    help={
        "env": "whose tags and registries (default: local, which has no registry)",
        "promote": "take the image that this environment was built for the commit, if there is one",
        "metadata": "write what was built into this JSON file, and tell a job's step of it",
        "json": "JSON lines on standard output",
    }
)
def build(
    context: Context, env: str = "local", promote: str = "", metadata: str = "", json: bool = False
) -> None:
    """Build this checkout's image, tag it as an environment says, and push it where that says."""
    from pathlib import Path

    from deploy.environment.model import load_environment
    from deploy.machine.engine import ensure_engine
    from deploy.operations import source
    from deploy.output.build_metadata import write
    from deploy.output.report import Report
    from deploy.secrets import load_secrets

    with Report(json=json) as report:
        environment = load_environment(env)
        secrets = load_secrets(environment, containers=False)
        found = None
        if promote:
            # Its hosts are not asked: they may still be the examples.
            earlier = load_environment(promote, placeholders=True)
            found = source.promote(environment, earlier, secrets, report.events)
        if found is None:
            ensure_engine(lambda text: report.events.emit("note", text))
            release = source.build(environment, secrets, report.events).release
        else:
            release = found.release
        report.show_image(release)
    if metadata:
        write(Path(metadata), release, env, built=found is None)


@task(
    help={
        "env": "whose registries (default: AMANI_ENV, or production)",
        "keep": "how many of each kind stay whatever their age",
        "dry_run": "only say what would go",
    }
)
def retention(context: Context, env: str = "", keep: int = 5, dry_run: bool = False) -> None:
    """Delete images past their time: of commits after 90 days, of staging after 30."""
    from deploy.environment.model import load_environment
    from deploy.errors import UsageError
    from deploy.operations.expiry import expire
    from deploy.tasks.release import default_environment

    if keep < 1:
        raise UsageError(f"--keep={keep}: one at least must stay")
    expire(load_environment(env or default_environment()), keep=keep, dry_run=dry_run)
