"""JSON lines, for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deploy.errors import DeployError
from deploy.output.base_console import Console, Row

if TYPE_CHECKING:
    from deploy.events import Event
    from deploy.execute.plan import Plan

INTERRUPTED = 130
"""Exit code after Ctrl-C, the same as in shells: 128 + SIGINT."""


class JsonConsole(Console):
    """Writes one JSON object per line, each with a `kind`, and nothing else.

    The kinds are those of the events, and `table` (title, rows), `planned` (the plan), `result`
    (text, details). If the run fails, the last one is `error` (text, hint, host, exit_code).
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, DeployError):
            values = {"text": error.message, "hint": error.hint, "host": error.host}
            self._guard(lambda: self._write("error", **values, exit_code=error.exit_code))
        elif isinstance(error, KeyboardInterrupt):
            self._guard(lambda: self._write("error", text="interrupted", exit_code=INTERRUPTED))

    def _event(self, event: Event) -> None:
        values = dataclasses.asdict(event)
        self._write(values.pop("kind"), **values)

    def _table(self, title: str, rows: Sequence[Row], empty: str) -> None:
        self._write("table", title=title, rows=rows)

    def _plan(self, plan: Plan) -> None:
        self._write("planned", plan=plan.as_json(), hash=plan.hash, reasons=list(plan.reasons))

    def _summary(self, headline: str, details: Row) -> None:
        self._write("result", text=headline, details=details)

    def _write(self, kind: str, **values: Any) -> None:
        filled = {key: value for key, value in values.items() if value not in (None, "", {})}
        print(json.dumps({"kind": kind, **filled}, default=str), file=self._stream, flush=True)
