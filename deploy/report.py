"""What a request says to the person or machine that made it: events as they come, then a result."""

from __future__ import annotations

import json as jsons
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deploy.errors import UsageError
from deploy.events import Event, Events

if TYPE_CHECKING:
    from deploy.journal import Record
    from deploy.operations.deploy import Result
    from deploy.operations.rollback import Target
    from deploy.operations.status import Status


class Report:
    """The outlet of one request; `events` is what the request is given to speak into."""

    def __init__(self, *, json: bool = False) -> None:
        self._json = json
        self.events = Events(self._print_event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def _print_event(self, event: Event) -> None:
        if self._json:
            print(jsons.dumps(asdict(event)), flush=True)
        elif event.text and event.kind != "step-progress":
            place = f"{event.host}: " if event.host else ""
            print(f"{time.strftime('%H:%M:%S')} {event.kind:14} {place}{event.text}", flush=True)

    def confirm(self, question: str, expected: str, *, automatic: bool) -> None:
        """Ask, and raise UsageError unless `expected` is typed."""
        if automatic:
            return
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody is there to ask.", hint="--auto-confirm")
        if input(f"{question}\nType {expected} to go on: ").strip() != expected:
            raise UsageError("not confirmed; nothing was changed")

    def show_result(self, result: Result, *, dry_run: bool) -> None:
        """The plan of a dry run, or how the run ended."""
        plan = result.plan
        if self._json:
            self._print_json("finished", asdict(result) | {"plan": plan.as_json()})
            return
        if plan.empty:
            print(f"{plan.environment} is on {plan.version} already: nothing to do")
        elif dry_run:
            for stage in plan.stages:
                print(stage.name)
                for lane in stage.lanes:
                    for step in lane:
                        print(f"  {step.host:12} {step.describe()}")
            print(f"plan {plan.hash[:12]}; nothing was changed")
        else:
            print(f"{plan.version} serves {result.environment.url} ({result.seconds:.1f} s)")

    def show_targets(self, name: str, targets: Sequence[Target]) -> None:
        """What can be gone back to."""
        rows = [
            {
                "version": target.record.version + (" (live)" if target.live else ""),
                "commit": target.record.revision[:12],
                "live since": _when(target.record.finished),
                "by": target.record.requested_by,
                "kept": target.standing,
            }
            for target in targets
        ]
        self._table(f"releases of {name} to go back to", rows)

    def show_status(self, status: Status) -> None:
        """Hosts and slots, and what is not as recorded."""
        self._table(f"{status.environment} ({status.url})", [asdict(row) for row in status.rows])
        if not self._json:
            for line in (*status.unreachable, *status.drift):
                print(f"! {line}")

    def show_releases(self, name: str, records: Sequence[Record]) -> None:
        """The history."""
        rows = [
            {
                "when": _when(record.started),
                "kind": record.kind,
                "version": record.version,
                "outcome": record.outcome,
                "seconds": f"{record.finished - record.started:.1f}",
                "by": record.requested_by,
            }
            for record in records
        ]
        self._table(f"history of {name}", rows)

    def _table(self, title: str, rows: Sequence[dict[str, Any]]) -> None:
        if self._json:
            self._print_json("table", {"title": title, "rows": list(rows)})
            return
        print(title)
        if not rows:
            print("  nothing yet")
            return
        cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
        for row in cells:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    def _print_json(self, kind: str, data: dict[str, Any]) -> None:
        print(jsons.dumps({"kind": kind, "data": data}, default=str), flush=True)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
