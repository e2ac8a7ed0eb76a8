"""The step that appends a run to the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.state import journal


@dataclass(frozen=True)
class RecordRun(Step):
    """Append the run to the host's journal, as `incomplete` if a finishing stage failed."""

    kind: ClassVar[str] = "record"

    def describe(self) -> str:
        return "write the journal"

    def apply(self, run: Run) -> None:
        outcome = "incomplete" if run.progress.leftovers else "succeeded"
        host = run.hosts[self.host]
        journal.append(host, run.environment.folder, run.record(outcome))
