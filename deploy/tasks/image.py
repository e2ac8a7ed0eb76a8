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
