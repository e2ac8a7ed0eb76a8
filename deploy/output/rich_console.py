"""Colour and live rows, for terminals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from deploy.output.base_console import Console, Row, format_cell, format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from deploy.events import Event
    from deploy.execute.plan import Plan


class RichConsole(Console):
    """Writes a line per finished step; below, a live row per running step with its time."""

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
        """Remove the live rows and flush the stream."""
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
            if event.kind == "revert-started":  # an interrupted step has no end event
                self._running.clear()
            elif event.kind in self._ENDS:
                self._running.pop(key, None)
                self._share.pop(key, None)
            self._print_event(event)

    def _print_event(self, event: Event) -> None:
        from rich.text import Text

        mark, style = self._STYLES.get(event.kind, ("· ", "dim"))
        failed = event.kind in ("step-failed", "revert-failed")
        # The error that ends the run has the full text of a failure. It is printed once, last.
        text = event.text.splitlines()[0] if failed and event.text else event.text
        if not text:
            return
        line = Text()
        if event.kind != "stage-started":
            line.append(f"  {mark}", style)
            line.append(f"{event.host or '':{self._width}}  " if self._width else "", "cyan")
        line.append(text, style if not mark or failed else "")
        line.append(format_duration(event), "dim")
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
            table.add_row(*(Text(format_cell(value)) for value in row.values()))
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
            grid.add_row(Text(f"  {name}", "dim"), Text(format_cell(value)))
        self._terminal.print(grid)
