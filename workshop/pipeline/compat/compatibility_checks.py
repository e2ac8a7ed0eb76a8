"""Two releases on each other's schema, round by round, as a deploy brings them together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from deploy.database.revisions import Revision
from deploy.errors import DeployError, GateRefused
from workshop.pipeline.compat.api_checks import ApiChecks, Tell
from workshop.pipeline.compat.compat_environment import CompatEnvironment, RunningRelease
from workshop.pipeline.compat.tried_release import ApiResult, TriedRelease

CHECK = ("flask", "amani", "reconcile")
"""Says whether a database's content is right."""
WATCH = 2.0
"""Seconds for which a release must go on being unready on a schema that is not enough for it."""
OWN, FOREIGN = "own_schema", "foreign_schema"
"""Databases for a release's own tests to copy, on its own schema and on this checkout's."""


@dataclass(frozen=True)
class CompatibilityChecks:
    """The rounds of one trial; every one raises `GateRefused` with what does not work."""

    environment: CompatEnvironment
    api_checks: ApiChecks
    old: TriedRelease
    new: TriedRelease
    head: str
    """The revision that the release before needs."""
    wanted: str
    """The one that this checkout needs."""
    tell: Tell

    def run(self, pending: tuple[Revision, ...], early: bool) -> None:
        """`early` says that a deploy migrates before this checkout serves, and not after it."""
        self.environment.create("lived")
        self._migrate(self.old, "lived", self.head)
        for copy in ("empty", OWN):
            self.environment.create(copy, "lived")
        with self.environment.serve(self.old.image, "lived", paying=True) as service:
            control = self.api_checks.ask(self.old, service)
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

    def _old_on_new(self, control: ApiResult, pending: tuple[Revision, ...]) -> None:
        """What serves while a deploy is under way, and what a rollback brings back."""
        self.environment.create("fresh")
        self._migrate(self.new, "fresh", self.wanted)
        self.environment.create(FOREIGN, "fresh")
        idle = self.environment.uses("fresh")
        with self.environment.serve(self.old.image, "fresh", paying=True) as service:
            self.environment.await_readiness(service, f"{self.old.name} ready on {self.wanted}")
            result = self.api_checks.ask(self.old, service)
        wrong = [*result.wrong]
        if result.answers.statuses:
            wrong += control.answers.differences(result.answers)
        if not wrong:
            wrong = self.api_checks.test(self.old, FOREIGN, OWN)
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
        used = self.environment.uses("fresh")
        missed = sorted(table for table in used if used[table] == idle[table])
        self.tell(
            f"{self.old.name} on {self.wanted}: as on {self.head}; it used "
            f"{len(used) - len(missed)} of {len(used)} tables"
            + (f", all but {', '.join(missed)}" if missed else "")
        )

    def _unready(self, old: RunningRelease) -> None:
        """Booted before its migrations, a release waits for them, and touches nothing."""
        before = self.environment.fingerprint("lived")
        with self.environment.serve(self.new.image, "lived") as service:
            until = time.monotonic() + WATCH
            while time.monotonic() < until:
                if (status := service.status("/readiness")) != 503:
                    raise GateRefused(
                        f"this checkout's readiness answers {status} on the schema {self.head}, "
                        "which is not enough for it; it must be 503 until its migrations ran"
                    )
                time.sleep(0.1)
            if self.environment.fingerprint("lived") != before or not old.ready:
                raise GateRefused(
                    f"this checkout, unready on {self.head}, changed what {self.old.name} uses"
                )
            self._migrate(self.new, "lived", self.wanted)
            self.environment.await_readiness(service, f"this checkout ready on {self.wanted}")
        self.tell(f"this checkout on {self.head}: unready, changed nothing, ready once it migrated")

    def _new_on_old(self) -> None:
        """Where migrations only take away, they come last: the release must not need them."""
        with self.environment.serve(self.new.image, "empty", paying=True) as service:
            self.environment.await_readiness(service, f"this checkout ready on {self.head}")
            result = self.api_checks.ask(self.new, service)
        if result.wrong:
            raise GateRefused(
                f"this checkout does not run on {self.head}, and its migrations come after it:\n"
                + _listed(result.wrong)
            )
        self.tell(f"this checkout on {self.head}: serves before what goes is gone")

    def _require_right(self, old: RunningRelease) -> None:
        """What the release before wrote is right for both after the migration."""
        for one in (self.old, self.new):
            try:
                self.environment.run(one.image, "lived", *CHECK)
            except DeployError as error:
                text = f"what {self.old.name} wrote is wrong for {one.name} on {self.wanted}"
                raise GateRefused(f"{text}:\n{error.message}") from None
        if not old.ready:
            raise GateRefused(f"{self.old.name} is not ready any more on {self.wanted}")
        self.tell(f"what {self.old.name} wrote is right for both on {self.wanted}")

    def _migrate(self, release: TriedRelease, database: str, head: str) -> None:
        try:
            self.environment.run(release.image, database, "flask", "db", "upgrade")
        except DeployError as error:
            raise GateRefused(f"{release.name} cannot migrate: {error.message}") from None
        if (found := self.environment.revision(database)) != head:
            raise GateRefused(f"{release.name}: `flask db upgrade` ended at {found}, not at {head}")


def _listed(lines: list[str]) -> str:
    more = len(lines) - 20
    return "\n".join(
        [*(f"- {line}" for line in lines[:20]), *([f"- and {more} more"] * (more > 0))]
    )
