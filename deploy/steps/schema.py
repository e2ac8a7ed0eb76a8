"""Steps on the schema: upgrade and downgrade, each in a one-off container."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

from deploy.database.revisions import Kind
from deploy.errors import DeployError, EngineError
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.observe import orphaned_migrations
from deploy.state import containers
from deploy.state.release import ImageRef


@dataclass(frozen=True)
class Migrate(Step):
    """Upgrade the schema by one revision, in a one-off container of the release's image.

    There is no revert: the previous release runs on the schema of an expand or a backfill, and a
    contract is applied only once the release is live and verified.
    """

    kind: ClassVar[str] = "migrate"
    needs_smoke: ClassVar[bool] = True
    head: str
    change: Kind = "expand"
    """The class of the revision."""

    def describe(self) -> str:
        return f"migrate the database to {self.head} ({self.change})"

    def apply(self, run: Run) -> None:
        if self.change == "contract" and run.progress.leftovers:
            raise DeployError(
                f"{self.host}: {self.head} was not applied: an earlier step failed, so releases "
                f"other than {run.release.version} may still need what the contract removes",
                host=self.host,
            )
        _move(run, self.host, run.release.image, run.environment.migrations.command, self.head)


@dataclass(frozen=True)
class Downgrade(Step):
    """Downgrade the schema in a one-off container of an image that knows the revisions.

    The tables and columns that they added are lost with their data. The revert applies the
    revisions again, without that data: only the backup has it.
    """

    kind: ClassVar[str] = "downgrade"
    needs_smoke: ClassVar[bool] = True
    to: str
    back: str
    """The live revision."""
    repository: str
    digest: str
    registered: bool

    def describe(self) -> str:
        return f"downgrade the database from {self.back} to {self.to}"

    @property
    def image(self) -> ImageRef:
        """The newer image: the older one does not know the revisions."""
        return ImageRef(self.repository, self.digest, self.registered)

    def apply(self, run: Run) -> None:
        command = run.environment.migrations.downgrade_command
        _move(run, self.host, self.image, command, self.to)

    def revert(self, run: Run) -> None:
        _move(run, self.host, self.image, run.environment.migrations.command, self.back)


def _move(run: Run, host: str, image: ImageRef, command: tuple[str, ...], to: str) -> None:
    config = run.environment.migrations
    # A migration of this run may still run, if the host was unreachable before its removal.
    orphaned_migrations.await_end(run.hosts[host], run.environment, run.events, lambda: _rest(run))
    run_one_off(run, host, image, orphaned_migrations.PURPOSE, (*command, to))
    revision = run_one_off(run, host, image, "revision", config.current_command)
    # Only the revision that is read back proves the migration, not the exit status.
    if to not in revision.split():
        raise DeployError(
            f"{host}: the migration ended without an error, but the database is at "
            f"{revision.strip() or 'no revision'} and not at {to}",
            hint="run `flask db current` with the release's image and check its migrations",
            host=host,
        )


def run_one_off(
    run: Run, host: str, image: ImageRef, purpose: str, command: tuple[str, ...]
) -> str:
    """Run a command in a one-off container and return its output.

    Raises `DeployError` with the last lines of the output if it fails.
    """
    engine = run.hosts[host].engine
    spec = containers.make_one_off_container(
        run.environment,
        image,
        run.generations.get(host, ""),
        purpose=purpose,
        run_id=run.id,
        command=command,
    )
    engine.remove(spec.name)
    container = engine.create(spec)
    try:
        engine.start(container)
        status = _wait(run, host, container)
        output = run.redact(engine.logs(container, tail=200))
    finally:
        engine.remove(container)
    if status:
        tail = "\n".join(output.strip().splitlines()[-15:])
        raise DeployError(
            f"{host}: `{' '.join(command)}` failed with status {status}:\n{tail}",
            hint="fix the migration or the database, then deploy again",
            host=host,
        )
    return output


def _rest(run: Run) -> None:
    run.pause(0.1, math.inf)


def _wait(run: Run, host: str, container: str) -> int:
    engine = run.hosts[host].engine
    deadline = time.monotonic() + run.environment.timeouts.migrate
    while True:
        found = engine.inspect(container)
        if found is None:
            raise EngineError(f"{host}: the one-off container vanished", host=host)
        if found["State"]["Status"] in ("exited", "dead"):
            return int(found["State"]["ExitCode"])
        if not run.pause(0.1, deadline):
            raise DeployError(
                f"{host}: `migrate` took longer than "
                f"{run.environment.timeouts.migrate:g} s and was stopped",
                hint="raise timeouts.migrate, or end what blocks the migration in the database",
                host=host,
            )
