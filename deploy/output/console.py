"""What a run says: rich on a terminal, plain lines in a pipeline, JSON lines for machines.

All three are listeners to the same events and show the same tables, plans and summaries.
"""

from __future__ import annotations

import dataclasses
import json as jsons
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from deploy.errors import DeployError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from deploy.events import Event
    from deploy.execute.plan import Plan

Row = Mapping[str, Any]
INTERRUPTED = 130


def choose_listener(json: bool, stream: TextIO | None = None) -> Console:
    """The console for a stream (standard output by default).

    JSON lines where asked for; rich where the stream is a capable terminal and no pipeline runs
    (`CI` is unset); plain lines otherwise.
    """
    stream = sys.stdout if stream is None else stream
    if json:
        return JsonConsole(stream)
    capable = os.environ.get("TERM") not in (None, "", "dumb") and not os.environ.get("CI")
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return RichConsole(stream) if capable and unicode and stream.isatty() else PlainConsole(stream)


def confirm(
    question: str,
    expected: str,
    *,
    automatic: bool = False,
    option: str = "--auto-confirm",
    stdin: TextIO | None = None,
) -> None:
    """Ask on standard error, and go on only when `expected` is typed.

    `automatic` answers yes, as `option` lets people say. Raises UsageError where nobody is there
    to ask, or on another answer.
    """
    if automatic:
        return
    stdin = sys.stdin if stdin is None else stdin
    if not stdin.isatty():
        raise UsageError(
            f"{question}\nnobody is there to answer: standard input is no terminal",
            hint=f"{option} answers yes",
        )
    print(f"{question}\nType {expected} to go on: ", end="", file=sys.stderr, flush=True)
    if stdin.readline().strip() != expected:
        raise UsageError("not confirmed; nothing was changed")


class Console(ABC):
    """An outlet; used as a context, it ends cleanly whatever ends the run.

    `redact` is applied to every text that leaves, and to the error that ends the run: set it as
    soon as the secrets are known. A reader that goes away (`| head`) mutes the console and never
    disturbs the run.
    """

    def __init__(self, stream: TextIO) -> None:
        self.redact: Callable[[str], str] = str
        self._stream = stream
        self._muted = False
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, DeployError):
            error.message = self.redact(error.message)
            error.hint = self.redact(error.hint)
            error.args = (error.message,)

    def __call__(self, event: Event) -> None:
        """Show an event; step progress only where it can be drawn in place."""
        data = self._clean(event.data)
        self._guard(
            lambda: self._event(dataclasses.replace(event, text=self.redact(event.text), data=data))
        )

    def show_table(self, title: str, rows: Sequence[Row], *, empty: str = "nothing yet") -> None:
        """Rows under the keys of the first one; `empty` where there are none."""
        cleaned = [self._clean(row) for row in rows]
        self._guard(lambda: self._table(self.redact(title), cleaned, empty))

    def show_plan(self, plan: Plan) -> None:
        """What a plan would do, by stage and host."""
        self._guard(lambda: self._plan(plan))

    def show_summary(self, headline: str, details: Mapping[str, Any] | None = None) -> None:
        """How it ended, and what to know or type next."""
        cleaned = self._clean(details or {})
        self._guard(lambda: self._summary(self.redact(headline), cleaned))

    def close(self) -> None:
        """End everything that moves; safe to call twice."""
        self._guard(self._stream.flush)

    def _guard(self, show: Callable[[], None]) -> None:
        if self._muted:
            return
        try:
            show()
        except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
            self._muted = True
            if self._stream is sys.stdout:
                # Or the interpreter complains when it flushes at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {key: self._clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._clean(item) for item in value]
        return value

    @abstractmethod
    def _event(self, event: Event) -> None: ...

    @abstractmethod
    def _table(self, title: str, rows: Sequence[Row], empty: str) -> None: ...

    @abstractmethod
    def _plan(self, plan: Plan) -> None: ...

    @abstractmethod
    def _summary(self, headline: str, details: Row) -> None: ...


class JsonConsole(Console):
    """One JSON object a line, each with its `kind`; nothing else reaches the stream.

    Beside the events there are `table` (title, rows), `planned` (the plan), `result` (text,
    details) and, last where the run failed, `error` (text, hint, host, exit_code).
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
        said = {key: value for key, value in values.items() if value not in (None, "", {})}
        print(jsons.dumps({"kind": kind, **said}, default=str), file=self._stream, flush=True)


class PlainConsole(Console):
    """A line an event, with the time in UTC."""

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
        self._print(
            f"{clock} {heading}{place}{self._MARKS.get(event.kind, '')}{text}{_took(event)}"
        )
        for reason in event.data.get("reasons", ()) if event.kind == "plan" else ():
            self._print(f"{clock}   {reason}")

    def _table(self, title: str, rows: Sequence[Row], empty: str) -> None:
        self._print(title)
        if not rows:
            self._print(f"  {empty}")
            return
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
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
            self._print(f"  {name:{width}}  {_cell(value)}")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class RichConsole(Console):
    """Finished steps as lines; below them the running ones, a row each with spinner and time."""

    _STYLES = {
        "stage-started": ("", "bold"),
        "warning": ("! ", "yellow"),
        "step-skipped": ("= ", "dim"),
        "step-finished": ("✓ ", "green"),
        "step-failed": ("✗ ", "bold red"),
        "revert-started": ("↶ ", "bold yellow"),
        "revert-finished": ("↶ ", "bold yellow"),
        "revert-failed": ("✗ ", "bold red"),
        "finished": ("✓ ", "bold green"),
    }
    _ENDS = ("step-skipped", "step-finished", "step-failed")

    def __init__(self, stream: TextIO) -> None:
        import rich.console

        super().__init__(stream)
        self._terminal = rich.console.Console(file=stream, highlight=False, markup=False)
        self._running: dict[tuple[str | None, str | None], Event] = {}
        self._share: dict[tuple[str | None, str | None], str] = {}
        self._live: Live | None = None
        self._width = 0

    def close(self) -> None:
        """Take the moving rows away."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._running.clear()
        super().close()

    def _event(self, event: Event) -> None:
        key = (event.host, event.step)
        self._width = max(self._width, len(event.host or ""))
        if event.kind == "step-started":
            self._running[key] = event
            self._draw()
        elif event.kind == "step-progress":
            total, done = event.data.get("total") or 0, event.data.get("done") or 0
            self._share[key] = f"{min(done / total, 1):4.0%}" if total else event.text
        elif event.kind != "stage-finished":
            if event.kind == "revert-started":  # an interrupted step says nothing more
                self._running.clear()
            elif event.kind in self._ENDS:
                self._running.pop(key, None)
                self._share.pop(key, None)
            self._say(event)

    def _say(self, event: Event) -> None:
        from rich.text import Text

        mark, style = self._STYLES.get(event.kind, ("· ", "dim"))
        failed = event.kind in ("step-failed", "revert-failed")
        # The whole story of a failure is the error that ends the run: printed once, last.
        text = event.text.splitlines()[0] if failed and event.text else event.text
        if not text:
            return
        line = Text()
        if event.kind != "stage-started":
            line.append(f"  {mark}", style)
            line.append(f"{event.host or '':{self._width}}  " if self._width else "", "cyan")
        line.append(text, style if not mark or failed else "")
        line.append(_took(event), "dim")
        for reason in event.data.get("reasons", ()) if event.kind == "plan" else ():
            line.append(f"\n    {reason}", "dim")
        self._terminal.print(line, soft_wrap=True)

    def _draw(self) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self._terminal,
                get_renderable=self._rows,
                refresh_per_second=10,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _rows(self) -> RenderableType:
        from rich.spinner import Spinner
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        now = time.time()
        for key, event in list(self._running.items()):
            grid.add_row(
                " ",
                Spinner("dots", style="cyan"),
                f"{event.host or '':{self._width}}",
                event.text,
                self._share.get(key, ""),
                f"{max(now - event.at, 0):.1f} s",
            )
        return grid

    def _table(self, title: str, rows: Sequence[Row], empty: str) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        self.close()
        self._terminal.print(Text(title, "bold"))
        if not rows:
            self._terminal.print(Text(f"  {empty}", "dim"))
            return
        table = Table(box=SIMPLE_HEAD, header_style="dim")
        for heading in rows[0]:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row.values()))
        self._terminal.print(table)

    def _plan(self, plan: Plan) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        self.close()
        table = Table("stage", "host", "step", box=SIMPLE_HEAD, header_style="dim")
        for number, stage in enumerate(plan.stages, 1):
            name = f"{number}. {stage.name}"
            for step in (step for lane in stage.lanes for step in lane):
                table.add_row(Text(name), Text(step.host), Text(self.redact(step.describe())))
                name = ""
            table.add_section()
        self._terminal.print(table)

    def _summary(self, headline: str, details: Row) -> None:
        from rich.table import Table
        from rich.text import Text

        self.close()
        self._terminal.print(Text(headline, "bold green"), soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        for name, value in details.items():
            grid.add_row(Text(f"  {name}", "dim"), Text(_cell(value)))
        self._terminal.print(grid)


def _took(event: Event) -> str:
    seconds = event.data.get("seconds")
    return f" ({seconds:.1f} s)" if isinstance(seconds, (int, float)) else ""


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
