"""Run the previous release on this checkout's schema, and this checkout on the previous schema."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.database.checkout import read_checkout
from deploy.database.compatibility import order
from deploy.database.revisions import History, Revision
from deploy.errors import UsageError
from deploy.events import Events
from deploy.state.release import BuildInfo
from workshop.pipeline.compat import previous_release
from workshop.pipeline.compat.api_checks import ApiChecks, Tell
from workshop.pipeline.compat.compat_environment import SERVER, CompatEnvironment
from workshop.pipeline.compat.compatibility_checks import CompatibilityChecks, Control
from workshop.pipeline.compat.previous_release import VERSIONS, PreviousRelease
from workshop.pipeline.compat.tried_release import TriedRelease


@dataclass(frozen=True)
class PreparedTrial:
    """A previous release with its image, and the server for the trials against it."""

    previous: PreviousRelease
    old: TriedRelease
    environment: CompatEnvironment
    control: Control = field(default_factory=Control)


def run(
    checkout: Path,
    *,
    base: str = "",
    image: str = "",
    report: Tell = print,
    prepared: PreparedTrial | None = None,
) -> None:
    """Run both releases on both schemas, in the order in which a deploy combines them.

    `base` is the previous release, by default the newest version tag in the past. `image` is its
    image, to be pulled; without it the image is built. Several trials against one release can share
    one that is `prepared`. Raises `GateRefused` with the failures, `UsageError` if the trial cannot
    be made.
    """
    before = prepared.previous if prepared else previous_release.find(checkout, base)
    history = read_checkout(checkout / VERSIONS)
    pending = _pending(before, history)
    if not pending:
        report(
            f"{before.version} and this checkout need the same schema, {history.head}: "
            "there is nothing to try"
        )
        return
    listed = ", ".join(f"{revision.id} ({revision.kind})" for revision in pending)
    report(f"between {before.version} (schema {before.history.head}) and this checkout: {listed}")
    unsafe = [revision.id for revision in pending if revision.kind == "unsafe"]
    if unsafe:
        report(f"{', '.join(unsafe)}: a deploy will require --allow-unsafe-migration")
    # The order of a deploy, which refuses to combine contract with other classes.
    early = bool(order(pending, "this checkout", allow_unsafe=bool(unsafe)).before)
    with contextlib.ExitStack() as stack:
        trial = prepared or stack.enter_context(prepare(checkout, before, image))
        new = stack.enter_context(_built(checkout))
        checks = CompatibilityChecks(
            trial.environment,
            ApiChecks(trial.environment, report),
            trial.old,
            new,
            before.history.head,
            history.head,
            report,
            trial.control if prepared else None,
        )
        checks.run(pending, early)
    report(f"{before.version} runs on {history.head}, and this checkout keeps to its schema")


@contextlib.contextmanager
def prepare(checkout: Path, previous: PreviousRelease, image: str = "") -> Iterator[PreparedTrial]:
    """Start a server, and provide the previous release's image: pull `image`, or build it."""
    from deploy.images import bases
    from deploy.machine.engine import ensure_engine

    ensure_engine()
    bases.ensure_bases([SERVER])
    with tempfile.TemporaryDirectory(prefix="compat-") as folder, contextlib.ExitStack() as stack:
        source = Path(folder)
        previous_release.export(checkout, previous.commit, source)
        if image:
            _pull(image, previous)
        else:
            arguments = {"BUILD_VERSION": previous.version, "BUILD_SHA": previous.commit}
            image = stack.enter_context(_image(source, arguments, "previous"))
        environment = stack.enter_context(CompatEnvironment())
        yield PreparedTrial(previous, TriedRelease(previous.version, image, source), environment)


def _pending(before: PreviousRelease, history: History) -> tuple[Revision, ...]:
    head = before.history.head
    if not head:
        raise UsageError(
            f"{before.version} has no migrations, so there is no schema to be compatible with"
        )
    if head not in history:
        raise UsageError(
            f"{before.version} has the schema head {head}, which this checkout's migrations do not "
            "contain",
            hint="Restore it if it was renamed or removed: revisions of a release must not change.",
        )
    return history.after(head)


@contextlib.contextmanager
def _built(checkout: Path) -> Iterator[TriedRelease]:
    with _image(checkout, BuildInfo.of(checkout).arguments, "checkout") as image:
        yield TriedRelease("this checkout", image, checkout)


@contextlib.contextmanager
def _image(source: Path, arguments: Mapping[str, str], kind: str) -> Iterator[str]:
    """Build an image, and remove it at the end."""
    import docker
    import docker.errors

    from deploy.images import build

    built = build.build(
        source, arguments, [f"amani-compat:{time.time_ns():x}-{kind}"], events=Events()
    )
    try:
        yield built.references[0]
    finally:
        with contextlib.closing(docker.from_env(timeout=300)) as engine:
            for name in built.references:
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(name, force=True)


def _pull(image: str, before: PreviousRelease) -> None:
    import docker
    import docker.errors

    from deploy.state.release import SCHEMA_HEAD

    with contextlib.closing(docker.from_env(timeout=300)) as engine:
        try:
            found = engine.images.pull(image)
        except docker.errors.DockerException as error:
            raise UsageError(f"{image} cannot be pulled: {error}") from None
    head = found.labels.get(SCHEMA_HEAD, "")
    if head != before.history.head:
        raise UsageError(
            f"{image} needs the schema {head or 'none'}, and {before.version} in git needs "
            f"{before.history.head}: it is the image of another release"
        )
