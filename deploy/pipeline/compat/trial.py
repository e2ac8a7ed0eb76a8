"""The previous release on this checkout's schema, and this checkout on the previous one's."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.database.checkout import read_checkout
from deploy.database.compatibility import order
from deploy.database.revisions import History, Revision
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.events import Events
from deploy.pipeline.compat import contract, previous
from deploy.pipeline.compat.contract import Answers
from deploy.pipeline.compat.previous import VERSIONS, Previous
from deploy.pipeline.compat.stand import SERVER, Service, Stand
from deploy.pipeline.compat.walk import PAGE, walk
from deploy.release import BuildInfo

CHECK = ("flask", "amani", "reconcile")
"""Says whether a database's content is right."""
WATCH = 2.0
"""Seconds for which a release must go on being unready on a schema that is not enough for it."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A release in the trial: what it is called, its image, and its sources."""

    name: str
    image: str
    source: Path


@dataclass(frozen=True)
class Ran:
    """How a release went through its own API suite on some database."""

    wrong: list[str]
    answers: Answers = field(default_factory=Answers)


def run(checkout: Path, *, base: str = "", image: str = "", report: Tell = print) -> None:
    """Try both releases on both schemas, in the orders in which a deploy brings them together.

    `base` is the release before, if not the newest version tag in the past; `image` is its image,
    if it shall be pulled and not built. Raises `GateRefused` with what does not work, `UsageError`
    where the trial itself cannot be made.
    """
    before = previous.find(checkout, base)
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
    with _candidates(checkout, before, image) as (old, new), Stand() as stand:
        _Trial(stand, old, new, before.history.head, history.head, report).run(pending, early)
    report(f"{before.version} runs on {history.head}, and this checkout keeps to its schema")


def _pending(before: Previous, history: History) -> tuple[Revision, ...]:
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
    checkout: Path, before: Previous, image: str
) -> Iterator[tuple[Candidate, Candidate]]:
    import docker
    import docker.errors

    from deploy import engine_bootstrap
    from deploy.images import bases, build

    engine_bootstrap.ensure_engine()
    bases.ensure_bases([SERVER])
    tag = f"amani-compat:{time.time_ns():x}"
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        source = Path(folder)
        previous.export(checkout, before.commit, source)
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
                    Candidate(before.version, image, source),
                    Candidate("this checkout", tag, checkout),
                )
            finally:
                for name in made:
                    with contextlib.suppress(docker.errors.APIError):
                        engine.images.remove(name, force=True)


def _pull(engine: Any, image: str, before: Previous) -> None:
    import docker.errors

    from deploy.release import SCHEMA_HEAD

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


class _Trial:
    def __init__(
        self, stand: Stand, old: Candidate, new: Candidate, head: str, wanted: str, tell: Tell
    ) -> None:
        self._stand, self._old, self._new = stand, old, new
        self._head, self._wanted, self._tell = head, wanted, tell

    def run(self, pending: tuple[Revision, ...], early: bool) -> None:
        """`early` says that a deploy migrates before this checkout serves, and not after it."""
        self._stand.create("lived")
        self._migrate(self._old, "lived", self._head)
        self._stand.create("empty", "lived")
        with self._stand.serve(self._old.image, "lived", paying=True) as service:
            control = self._suite(self._old, service)
            if control.wrong:
                raise GateRefused(
                    f"{self._old.name} fails on its own schema {self._head} already, so nothing "
                    f"can be told of another one:\n{_listed(control.wrong)}",
                    hint="name another release before this one: --base=REF",
                )
            if early:
                self._old_on_new(control, pending)
                self._unready(service)
            else:
                self._new_on_old()
                self._old_on_new(control, pending)
                self._migrate(self._new, "lived", self._wanted)
            self._require_right(service)

    def _old_on_new(self, control: Ran, pending: tuple[Revision, ...]) -> None:
        """What serves while a deploy is under way, and what a rollback brings back."""
        self._stand.create("fresh")
        self._migrate(self._new, "fresh", self._wanted)
        idle = self._stand.uses("fresh")
        with self._stand.serve(self._old.image, "fresh", paying=True) as service:
            self._stand.await_readiness(service, f"{self._old.name} ready on {self._wanted}")
            ran = self._suite(self._old, service)
        wrong = [*ran.wrong]
        if ran.answers.statuses:
            wrong += control.answers.differences(ran.answers)
        if wrong:
            taken = [revision.id for revision in pending if revision.kind == "contract"]
            hint = "a deploy would break what serves, and a rollback could not bring it back"
            if taken:
                hint = f"{', '.join(taken)}: what goes must not be used by the release before any "
                hint += "more; ship it one release after the code that has stopped"
            raise GateRefused(
                f"{self._old.name} does not run on the schema {self._wanted}:\n{_listed(wrong)}",
                hint=f"{hint} (docs/migrations.md)",
            )
        used = self._stand.uses("fresh")
        missed = sorted(table for table in used if used[table] == idle[table])
        self._tell(
            f"{self._old.name} on {self._wanted}: as on {self._head}; it used "
            f"{len(used) - len(missed)} of {len(used)} tables"
            + (f", all but {', '.join(missed)}" if missed else "")
        )

    def _unready(self, old: Service) -> None:
        """Booted before its migrations, a release waits for them, and touches nothing."""
        before = self._stand.fingerprint("lived")
        with self._stand.serve(self._new.image, "lived") as service:
            until = time.monotonic() + WATCH
            while time.monotonic() < until:
                if (status := service.status("/readiness")) != 503:
                    raise GateRefused(
                        f"this checkout's readiness answers {status} on the schema {self._head}, "
                        "which is not enough for it; it must be 503 until its migrations ran"
                    )
                time.sleep(0.1)
            if self._stand.fingerprint("lived") != before or not old.ready:
                raise GateRefused(
                    f"this checkout, unready on {self._head}, changed what {self._old.name} uses"
                )
            self._migrate(self._new, "lived", self._wanted)
            self._stand.await_readiness(service, f"this checkout ready on {self._wanted}")
        self._tell(
            f"this checkout on {self._head}: unready, changed nothing, ready once it migrated"
        )

    def _new_on_old(self) -> None:
        """Where migrations only take away, they come last: the release must not need them."""
        with self._stand.serve(self._new.image, "empty", paying=True) as service:
            self._stand.await_readiness(service, f"this checkout ready on {self._head}")
            ran = self._suite(self._new, service)
        if ran.wrong:
            raise GateRefused(
                f"this checkout does not run on {self._head}, and its migrations come after it:\n"
                + _listed(ran.wrong)
            )
        self._tell(f"this checkout on {self._head}: serves before what goes is gone")

    def _require_right(self, old: Service) -> None:
        """What the release before wrote is right for both after the migration."""
        for one in (self._old, self._new):
            try:
                self._stand.run(one.image, "lived", *CHECK)
            except DeployError as error:
                text = f"what {self._old.name} wrote is wrong for {one.name} on {self._wanted}"
                raise GateRefused(f"{text}:\n{error.message}") from None
        if not old.ready:
            raise GateRefused(f"{self._old.name} is not ready any more on {self._wanted}")
        self._tell(f"what {self._old.name} wrote is right for both on {self._wanted}")

    def _migrate(self, release: Candidate, database: str, head: str) -> None:
        try:
            self._stand.run(release.image, database, "flask", "db", "upgrade")
        except DeployError as error:
            raise GateRefused(f"{release.name} cannot migrate: {error.message}") from None
        if (found := self._stand.revision(database)) != head:
            raise GateRefused(f"{release.name}: `flask db upgrade` ended at {found}, not at {head}")

    def _suite(self, release: Candidate, service: Service) -> Ran:
        wrong = []
        if (release.source / PAGE).is_file():
            wrong = walk(release.source, service)
        else:
            self._tell(f"{release.name} has no {PAGE}: only its OpenAPI document is asked")
        if wrong:
            return Ran(wrong)
        try:
            with self._stand.work(release.image, service):
                answers = contract.ask_all(service)
        except DeployError as error:
            return Ran([error.message])
        return Ran(answers.wrong, answers)


def _listed(lines: list[str]) -> str:
    more = len(lines) - 20
    return "\n".join(
        [*(f"- {line}" for line in lines[:20]), *([f"- and {more} more"] * (more > 0))]
    )
