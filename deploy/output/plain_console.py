"""Plain lines, for logs and pipelines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.output.base_console import Console, Row, format_cell, format_duration

if TYPE_CHECKING:
    from deploy.events import Event
    from deploy.execute.plan import Plan


class PlainConsole(Console):
    """Writes one line per event, with the time in UTC."""

    _MARKS = {
        "warning": "warning: ",
        "step-skipped": "nothing to do: ",
        "step-finished": "done: ",
        "step-failed": "FAILED: ",
        "revert-started": "REVERTING: ",
        "revert-finished": "reverted: ",
        "revert-failed": "REVERT FAILED: ",
    }

    def _event(self, event: Event) -> None:
        if event.kind in ("step-progress", "stage-finished") or not event.text:
            return
        clock = time.strftime("%H:%M:%SZ", time.gmtime(event.at))
        place = f"{event.host}: " if event.host else ""
        text = event.text.splitlines()[0] if event.kind == "step-failed" else event.text
        heading = "-- " if event.kind == "stage-started" else ""
        mark = self._MARKS.get(event.kind, "")
        self._print(f"{clock} {heading}{place}{mark}{text}{format_duration(event)}")
        for reason in event.data.get("reasons", ()) if event.kind == "plan" else ():
            self._print(f"{clock}   {reason}")

    def _table(self, title: str, rows: Sequence[Row], empty: str) -> None:
        self._print(title)
        if not rows:
            self._print(f"  {empty}")
            return
        cells = [list(rows[0]), *([format_cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._print("  " + "  ".join(padded).rstrip())

    def _plan(self, plan: Plan) -> None:
        hosts = [step.host for step in plan.steps()]
        width = max(map(len, hosts), default=0)
        for number, stage in enumerate(plan.stages, 1):
            self._print(f"{number}. {stage.name}")
            for step in (step for lane in stage.lanes for step in lane):
                self._print(f"   {step.host:{width}}  {self.redact(step.describe())}")

    def _summary(self, headline: str, details: Row) -> None:
        self._print(headline)
        width = max(map(len, details), default=0)
        for name, value in details.items():
            self._print(f"  {name:{width}}  {format_cell(value)}")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
