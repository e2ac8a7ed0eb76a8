"""Run two releases on each other's schema, in the order in which a deploy combines them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from deploy.database.revisions import Revision
from deploy.errors import DeployError, GateRefused
from workshop.pipeline.compat.api_checks import ApiChecks, Tell
from workshop.pipeline.compat.compat_environment import CompatEnvironment, RunningRelease
from workshop.pipeline.compat.tried_release import ApiResult, TriedRelease

CHECK = ("flask", "amani", "reconcile")
"""The command that checks the content of a database."""
WATCH = 2.0
"""Seconds for which a release must stay unready on a schema that is too old for it."""
OWN, FOREIGN = "own_schema", "foreign_schema"
"""Empty databases that tests copy: on the previous release's schema and on this checkout's."""
WRITTEN = "written"
"""The snapshot of the database after the control run, for later trials against the release."""


@dataclass
class Control:
    """The result of the previous release on its own schema; several trials share it."""

    result: ApiResult | None = None


@dataclass(frozen=True)
class CompatibilityChecks:
    """The checks of one trial; each raises `GateRefused` with the failures."""

    environment: CompatEnvironment
    api_checks: ApiChecks
    old: TriedRelease
    new: TriedRelease
    head: str
    """The schema head of the previous release."""
    wanted: str
    """The schema head of this checkout."""
    tell: Tell
    shared: Control | None = None

    def run(self, pending: tuple[Revision, ...], early: bool) -> None:
        """Run all checks. `early`: a deploy migrates before this checkout serves, not after it."""
        known = self.shared.result if self.shared else None
        if known:
            self.environment.create("lived", WRITTEN)
            self.environment.create("empty", OWN)
        else:
            self.environment.create("lived")
            self._migrate(self.old, "lived", self.head)
            for copy in ("empty", OWN):
                self.environment.create(copy, "lived")
        with self.environment.serve(self.old.image, "lived", paying=True) as service:
            control = known or self._control(service)
            if early:
                self._old_on_new(control, pending)
                self._unready(service)
            else:
                self._new_on_old()
                self._old_on_new(control, pending)
                self._migrate(self.new, "lived", self.wanted)
            self._require_right(service)

    def _control(self, service: RunningRelease) -> ApiResult:
        """Check the previous release on its own schema."""
        control = self.api_checks.ask(self.old, service)
        if control.wrong:
            raise GateRefused(
                f"{self.old.name} fails on its own schema {self.head} already, so its result on "
                f"another schema proves nothing:\n{_listed(control.wrong)}",
                hint="choose another previous release: --base=REF",
            )
        if self.shared:
            self.environment.snapshot("lived", WRITTEN)
            self.shared.result = control
        return control

    def _old_on_new(self, control: ApiResult, pending: tuple[Revision, ...]) -> None:
        """Check the release that serves during a deploy, and after a rollback."""
        self.environment.create("fresh")
        self._migrate(self.new, "fresh", self.wanted)
        self.environment.create(FOREIGN, "fresh")
        idle = self.environment.uses("fresh")
        with self.environment.serve(self.old.image, "fresh", paying=True) as service:
            self.environment.await_readiness(
                service, f"readiness of {self.old.name} on {self.wanted}"
            )
            result = self.api_checks.ask(self.old, service)
        wrong = [*result.wrong]
        if result.answers.statuses:
            wrong += control.answers.differences(result.answers)
        if not wrong:
            wrong = self.api_checks.test(self.old, FOREIGN, OWN)
        if wrong:
            taken = [revision.id for revision in pending if revision.kind == "contract"]
            hint = "a deploy would break the live release, and a rollback could not restore it"
            if taken:
                hint = f"{', '.join(taken)}: the previous release must not use what a contract "
                hint += "removes; ship it one release after the code that stops using it"
            raise GateRefused(
                f"{self.old.name} does not run on the schema {self.wanted}:\n{_listed(wrong)}",
                hint=f"{hint} (docs/migrations.md)",
            )
        used = self.environment.uses("fresh")
        missed = sorted(table for table in used if used[table] == idle[table])
        self.tell(
            f"{self.old.name} on {self.wanted}: same answers as on {self.head}; it used "
            f"{len(used) - len(missed)} of {len(used)} tables"
            + (f", all but {', '.join(missed)}" if missed else "")
        )

    def _unready(self, old: RunningRelease) -> None:
        """Check that a release stays unready and changes nothing until its migrations ran."""
        before = self.environment.fingerprint("lived")
        with self.environment.serve(self.new.image, "lived") as service:
            until = time.monotonic() + WATCH
            while time.monotonic() < until:
                if (status := service.status("/readiness")) != 503:
                    raise GateRefused(
                        f"this checkout's readiness answers {status} on the schema {self.head}, "
                        "which is too old for it; it must answer 503 until its migrations ran"
                    )
                time.sleep(0.1)
            if self.environment.fingerprint("lived") != before or not old.ready:
                raise GateRefused(
                    f"this checkout, unready on {self.head}, disturbed {self.old.name} "
                    "or its database"
                )
            self._migrate(self.new, "lived", self.wanted)
            self.environment.await_readiness(
                service, f"readiness of this checkout on {self.wanted}"
            )
        self.tell(f"this checkout on {self.head}: unready, no change, ready after its migrations")

    def _new_on_old(self) -> None:
        """Check this checkout before its contract migrations, which run last."""
        with self.environment.serve(self.new.image, "empty", paying=True) as service:
            self.environment.await_readiness(service, f"readiness of this checkout on {self.head}")
            result = self.api_checks.ask(self.new, service)
        if result.wrong:
            raise GateRefused(
                f"this checkout does not run on {self.head}, "
                f"and its migrations run after it serves:\n" + _listed(result.wrong)
            )
        self.tell(f"this checkout on {self.head}: serves before the contract migrations")

    def _require_right(self, old: RunningRelease) -> None:
        """Check the data of the previous release with both releases after the migration."""
        for one in (self.old, self.new):
            try:
                self.environment.run(one.image, "lived", *CHECK)
            except DeployError as error:
                text = f"the data of {self.old.name} is wrong for {one.name} on {self.wanted}"
                raise GateRefused(f"{text}:\n{error.message}") from None
        if not old.ready:
            raise GateRefused(f"{self.old.name} is no longer ready on {self.wanted}")
        self.tell(f"the data of {self.old.name} is correct for both on {self.wanted}")

    def _migrate(self, release: TriedRelease, database: str, head: str) -> None:
        try:
            self.environment.run(release.image, database, "flask", "db", "upgrade")
        except DeployError as error:
            raise GateRefused(f"{release.name} cannot migrate: {error.message}") from None
        if (found := self.environment.revision(database)) != head:
            raise GateRefused(
                f"{release.name}: `flask db upgrade` ended at {found}, expected {head}"
            )


def _listed(lines: list[str]) -> str:
    more = len(lines) - 20
    return "\n".join(
        [*(f"- {line}" for line in lines[:20]), *([f"- and {more} more"] * (more > 0))]
    )
