"""The step that backs up the database before it is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy.execute.plan import Step
from deploy.execute.run import Run


@dataclass(frozen=True)
class BackUp(Step):
    """Back up the database and verify the archive by reading it to its end.

    There is no revert: an additional backup is harmless.
    """

    kind: ClassVar[str] = "backup"
    reason: str
    """`deploy`, `rollback` or `migration`."""
    release: str = ""
    """The live version; that of the run's previous release if it is empty."""

    def describe(self) -> str:
        return "back up the database and read the archive to its end"

    def apply(self, run: Run) -> None:
        # Here, so that planning a backup loads nothing of what makes one.
        from deploy.backups import catalogue, jobs
        from deploy.backups.container import open_container

        host, environment = run.hosts[self.host], run.environment
        with open_container(
            host, environment, run.secrets, run.events, run_id=run.id, check=run.check_cancelled
        ) as container:
            made = jobs.back_up(
                container,
                environment,
                catalogue.read(host, environment),
                host=self.host,
                reason=self.reason,
                release=self.release or (run.previous.version if run.previous else ""),
            )
        run.events.emit("note", f"backup {made.manifest.id} is complete", host=self.host)
