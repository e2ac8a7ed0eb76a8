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
    from deploy.engine_bootstrap import ensure_engine
    from deploy.images.bases import ensure_bases

    ensure_engine()
    ensure_bases(names, force=force)


@task(
    help={
        "env": "whose tags and registries (default: local, which has no registry)",
        "metadata": "write what was built into this JSON file, and tell a job's step of it",
        "json": "JSON lines on standard output",
    }
)
def build(context: Context, env: str = "local", metadata: str = "", json: bool = False) -> None:
    """Build this checkout's image, tag it as an environment says, and push it where that says."""
    from pathlib import Path

    from deploy.engine_bootstrap import ensure_engine
    from deploy.environment import load
    from deploy.operations.source import build as build_release
    from deploy.pipeline.metadata import write
    from deploy.report import Report
    from deploy.secrets import load_secrets

    with Report(json=json) as report:
        environment = load(env)
        ensure_engine(lambda text: report.events.emit("note", text))
        built = build_release(
            environment, load_secrets(environment, containers=False), report.events
        )
        report.show_image(built.release)
    if metadata:
        write(Path(metadata), built.release, env)


@task(
    help={
        "env": "whose registries (default: AMANI_ENV, or production)",
        "keep": "how many of each kind stay whatever their age",
        "dry_run": "only say what would go",
    }
)
def retention(context: Context, env: str = "", keep: int = 5, dry_run: bool = False) -> None:
    """Delete images past their time: of commits after 90 days, of staging after 30."""
    from deploy.environment import load
    from deploy.errors import UsageError
    from deploy.operations.expiry import expire
    from deploy.tasks.release import default_environment

    if keep < 1:
        raise UsageError(f"--keep={keep}: one at least must stay")
    expire(load(env or default_environment()), keep=keep, dry_run=dry_run)
