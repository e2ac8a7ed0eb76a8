"""Two releases on each other's schema, round by round, as a deploy brings them together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from deploy.database.revisions import Revision
from deploy.errors import DeployError, GateRefused
from workshop.pipeline.compat.candidate import Candidate, Ran
from workshop.pipeline.compat.stand import Service, Stand
from workshop.pipeline.compat.suite import Suite, Tell

CHECK = ("flask", "amani", "reconcile")
"""Says whether a database's content is right."""
WATCH = 2.0
"""Seconds for which a release must go on being unready on a schema that is not enough for it."""
OWN, FOREIGN = "own_schema", "foreign_schema"
"""Databases for a release's own tests to copy, on its own schema and on this checkout's."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of one trial; every one raises `GateRefused` with what does not work."""

    stand: Stand
    suite: Suite
    old: Candidate
    new: Candidate
    head: str
    """The revision that the release before needs."""
    wanted: str
    """The one that this checkout needs."""
    tell: Tell

    def run(self, pending: tuple[Revision, ...], early: bool) -> None:
        """`early` says that a deploy migrates before this checkout serves, and not after it."""
        self.stand.create("lived")
        self._migrate(self.old, "lived", self.head)
        for copy in ("empty", OWN):
            self.stand.create(copy, "lived")
        with self.stand.serve(self.old.image, "lived", paying=True) as service:
            control = self.suite.ask(self.old, service)
            if control.wrong:
                raise GateRefused(
                    f"{self.old.name} fails on its own schema {self.head} already, so nothing "
                    f"can be told of another one:\n{_listed(control.wrong)}",
                    hint="name another release before this one: --base=REF",
                )
            if early:
                self._old_on_new(control, pending)
                self._unready(service)
            else:
                self._new_on_old()
                self._old_on_new(control, pending)
                self._migrate(self.new, "lived", self.wanted)
            self._require_right(service)

    def _old_on_new(self, control: Ran, pending: tuple[Revision, ...]) -> None:
        """What serves while a deploy is under way, and what a rollback brings back."""
        self.stand.create("fresh")
        self._migrate(self.new, "fresh", self.wanted)
        self.stand.create(FOREIGN, "fresh")
        idle = self.stand.uses("fresh")
        with self.stand.serve(self.old.image, "fresh", paying=True) as service:
            self.stand.await_readiness(service, f"{self.old.name} ready on {self.wanted}")
            ran = self.suite.ask(self.old, service)
        wrong = [*ran.wrong]
        if ran.answers.statuses:
            wrong += control.answers.differences(ran.answers)
        if not wrong:
            wrong = self.suite.test(self.old, FOREIGN, OWN)
        if wrong:
            taken = [revision.id for revision in pending if revision.kind == "contract"]
            hint = "a deploy would break what serves, and a rollback could not bring it back"
            if taken:
                hint = f"{', '.join(taken)}: what goes must not be used by the release before any "
                hint += "more; ship it one release after the code that has stopped"
            raise GateRefused(
                f"{self.old.name} does not run on the schema {self.wanted}:\n{_listed(wrong)}",
                hint=f"{hint} (docs/migrations.md)",
            )
        used = self.stand.uses("fresh")
        missed = sorted(table for table in used if used[table] == idle[table])
        self.tell(
            f"{self.old.name} on {self.wanted}: as on {self.head}; it used "
            f"{len(used) - len(missed)} of {len(used)} tables"
            + (f", all but {', '.join(missed)}" if missed else "")
        )

    def _unready(self, old: Service) -> None:
        """Booted before its migrations, a release waits for them, and touches nothing."""
        before = self.stand.fingerprint("lived")
        with self.stand.serve(self.new.image, "lived") as service:
            until = time.monotonic() + WATCH
            while time.monotonic() < until:
                if (status := service.status("/readiness")) != 503:
                    raise GateRefused(
                        f"this checkout's readiness answers {status} on the schema {self.head}, "
                        "which is not enough for it; it must be 503 until its migrations ran"
                    )
                time.sleep(0.1)
            if self.stand.fingerprint("lived") != before or not old.ready:
                raise GateRefused(
                    f"this checkout, unready on {self.head}, changed what {self.old.name} uses"
                )
            self._migrate(self.new, "lived", self.wanted)
            self.stand.await_readiness(service, f"this checkout ready on {self.wanted}")
        self.tell(f"this checkout on {self.head}: unready, changed nothing, ready once it migrated")

    def _new_on_old(self) -> None:
        """Where migrations only take away, they come last: the release must not need them."""
        with self.stand.serve(self.new.image, "empty", paying=True) as service:
            self.stand.await_readiness(service, f"this checkout ready on {self.head}")
            ran = self.suite.ask(self.new, service)
        if ran.wrong:
            raise GateRefused(
                f"this checkout does not run on {self.head}, and its migrations come after it:\n"
                + _listed(ran.wrong)
            )
        self.tell(f"this checkout on {self.head}: serves before what goes is gone")

    def _require_right(self, old: Service) -> None:
        """What the release before wrote is right for both after the migration."""
        for one in (self.old, self.new):
            try:
                self.stand.run(one.image, "lived", *CHECK)
            except DeployError as error:
                text = f"what {self.old.name} wrote is wrong for {one.name} on {self.wanted}"
                raise GateRefused(f"{text}:\n{error.message}") from None
        if not old.ready:
            raise GateRefused(f"{self.old.name} is not ready any more on {self.wanted}")
        self.tell(f"what {self.old.name} wrote is right for both on {self.wanted}")

    def _migrate(self, release: Candidate, database: str, head: str) -> None:
        try:
            self.stand.run(release.image, database, "flask", "db", "upgrade")
        except DeployError as error:
            raise GateRefused(f"{release.name} cannot migrate: {error.message}") from None
        if (found := self.stand.revision(database)) != head:
            raise GateRefused(f"{release.name}: `flask db upgrade` ended at {found}, not at {head}")


def _listed(lines: list[str]) -> str:
    more = len(lines) - 20
    return "\n".join(
        [*(f"- {line}" for line in lines[:20]), *([f"- and {more} more"] * (more > 0))]
    )
