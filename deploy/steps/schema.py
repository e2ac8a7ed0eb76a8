"""The schema: revisions applied and undone, each in a one-off container."""

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
    """Bring the schema one revision on, in a one-off container of the release's image.

    There is no revert: the release before runs on what comes before the swap, and what comes after
    it belongs to a release that is live and verified.
    """

    kind: ClassVar[str] = "migrate"
    needs_smoke: ClassVar[bool] = True
    head: str
    change: Kind = "expand"
    """The revision's class."""

    def describe(self) -> str:
        return f"migrate the database to {self.head} ({self.change})"

    def apply(self, run: Run) -> None:
        if self.change == "contract" and run.progress.leftovers:
            raise DeployError(
                f"{self.host}: {self.head} was not applied: not everything is on "
                f"{run.release.version} alone yet, and it takes away what others may use",
                host=self.host,
            )
        _move(run, self.host, run.release.image, run.environment.migrations.command, self.head)


@dataclass(frozen=True)
class Downgrade(Step):
    """Undo revisions, in a one-off container of the image that knows them; what they added, and
    all rows in it, is lost. The revert applies them again: the rows come back from the backup
    only."""

    kind: ClassVar[str] = "downgrade"
    needs_smoke: ClassVar[bool] = True
    to: str
    back: str
    """The live revision."""
    repository: str
    digest: str
    registered: bool

    def describe(self) -> str:
        return f"take the database back from {self.back} to {self.to}"

    @property
    def image(self) -> ImageRef:
        """The newer image: the older one cannot even name what is undone."""
        return ImageRef(self.repository, self.digest, self.registered)

    def apply(self, run: Run) -> None:
        command = run.environment.migrations.downgrade_command
        _move(run, self.host, self.image, command, self.to)

    def revert(self, run: Run) -> None:
        _move(run, self.host, self.image, run.environment.migrations.command, self.back)


def _move(run: Run, host: str, image: ImageRef, command: tuple[str, ...], to: str) -> None:
    config = run.environment.migrations
    # One of this very run, if the host was silent when it was to be removed.
    orphaned_migrations.await_end(run.hosts[host], run.environment, run.events, lambda: _rest(run))
    run_one_off(run, host, image, orphaned_migrations.PURPOSE, (*command, to))
    revision = run_one_off(run, host, image, "revision", config.current_command)
    # An exit status of 0 proves nothing: only the revision read back does.
    if to not in revision.split():
        raise DeployError(
            f"{host}: the migration ended without an error, but the database is at "
            f"{revision.strip() or 'no revision'} and not at {to}",
            hint="run `flask db current` with the release's image and look at its migrations",
            host=host,
        )


def run_one_off(
    run: Run, host: str, image: ImageRef, purpose: str, command: tuple[str, ...]
) -> str:
    """What a command prints in a one-off container; raises `DeployError` with it where it fails."""
    engine = run.hosts[host].engine
    spec = containers.one_off_container(
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
            hint="the release before serves on; mend the migration or the database and "
            "deploy again",
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
                hint="raise timeouts.migrate, or look for what blocks it in the database",
                host=host,
            )
