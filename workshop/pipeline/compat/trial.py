"""The previous release on this checkout's schema, and this checkout on the previous one's."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.database.checkout import read_checkout
from deploy.database.compatibility import order
from deploy.database.revisions import History, Revision
from deploy.errors import UsageError
from deploy.events import Events
from deploy.state.release import BuildInfo
from workshop.pipeline.compat import previous_release
from workshop.pipeline.compat.api_checks import ApiChecks, Tell
from workshop.pipeline.compat.compat_environment import SERVER, CompatEnvironment
from workshop.pipeline.compat.compatibility_checks import CompatibilityChecks
from workshop.pipeline.compat.previous_release import VERSIONS, PreviousRelease
from workshop.pipeline.compat.tried_release import TriedRelease


def run(checkout: Path, *, base: str = "", image: str = "", report: Tell = print) -> None:
    """Try both releases on both schemas, in the orders in which a deploy brings them together.

    `base` is the release before, if not the newest version tag in the past; `image` is its image,
    if it shall be pulled and not built. Raises `GateRefused` with what does not work, `UsageError`
    where the trial itself cannot be made.
    """
    before = previous_release.find(checkout, base)
    history = read_checkout(checkout / VERSIONS)
    pending = _pending(before, history)
    if not pending:
        report(
            f"{before.version} and this checkout need one schema, {history.head}: nothing to try"
        )
        return
    told = ", ".join(f"{revision.id} ({revision.kind})" for revision in pending)
    report(f"between {before.version} (schema {before.history.head}) and this checkout: {told}")
    unsafe = [revision.id for revision in pending if revision.kind == "unsafe"]
    if unsafe:
        report(f"{', '.join(unsafe)}: a deploy will want --allow-unsafe-migration")
    # As a deploy orders them, which refuses to take away together with what it adds.
    early = bool(order(pending, "this checkout", allow_unsafe=bool(unsafe)).before)
    with _candidates(checkout, before, image) as (old, new), CompatEnvironment() as environment:
        checks = CompatibilityChecks(
            environment,
            ApiChecks(environment, report),
            old,
            new,
            before.history.head,
            history.head,
            report,
        )
        checks.run(pending, early)
    report(f"{before.version} runs on {history.head}, and this checkout keeps to its schema")


def _pending(before: PreviousRelease, history: History) -> tuple[Revision, ...]:
    head = before.history.head
    if not head:
        raise UsageError(f"{before.version} has no migrations to be compatible with")
    if head not in history:
        raise UsageError(
            f"{before.version} is at {head}, which this checkout's migrations do not know",
            hint="was a revision of a release renamed or removed? It must stay as it is",
        )
    return history.after(head)


@contextlib.contextmanager
def _candidates(
    checkout: Path, before: PreviousRelease, image: str
) -> Iterator[tuple[TriedRelease, TriedRelease]]:
    import docker
    import docker.errors

    from deploy.images import bases, build
    from deploy.machine.engine import ensure_engine

    ensure_engine()
    bases.ensure_bases([SERVER])
    tag = f"amani-compat:{time.time_ns():x}"
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        source = Path(folder)
        previous_release.export(checkout, before.commit, source)
        made: list[str] = []
        with contextlib.closing(docker.from_env(timeout=300)) as engine:
            try:
                if image:
                    _pull(engine, image, before)
                else:
                    arguments = {"BUILD_VERSION": before.version, "BUILD_SHA": before.commit}
                    image = f"{tag}-previous"
                    made += build.build(source, arguments, [image], events=Events()).references
                arguments = BuildInfo.of(checkout).arguments
                made += build.build(checkout, arguments, [tag], events=Events()).references
                yield (
                    TriedRelease(before.version, image, source),
                    TriedRelease("this checkout", tag, checkout),
                )
            finally:
                for name in made:
                    with contextlib.suppress(docker.errors.APIError):
                        engine.images.remove(name, force=True)


def _pull(engine: Any, image: str, before: PreviousRelease) -> None:
    import docker.errors

    from deploy.state.release import SCHEMA_HEAD

    try:
        found = engine.images.pull(image)
    except docker.errors.DockerException as error:
        raise UsageError(f"{image} cannot be pulled: {error}") from None
    head = found.labels.get(SCHEMA_HEAD, "")
    if head != before.history.head:
        raise UsageError(
            f"{image} needs the schema {head or 'none'}, and {before.version} in git needs "
            f"{before.history.head}: it is another release"
        )
