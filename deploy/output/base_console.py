"""The interface of all consoles, and their common formats."""

from __future__ import annotations

import dataclasses
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from deploy.errors import DeployError

if TYPE_CHECKING:
    from deploy.events import Event
    from deploy.execute.plan import Plan

Row = Mapping[str, Any]


class Console(ABC):
    """Writes events, tables, plans and summaries to a stream. A context manager that closes itself.

    `redact` is applied to every text, and to the error that ends the run: set it as soon as the
    secrets are known. If the reader closes the stream (`| head`), the console discards everything
    else and the run continues.
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
        """Show an event. Plain lines omit the progress of a step."""
        data = self._clean(event.data)
        self._guard(
            lambda: self._event(dataclasses.replace(event, text=self.redact(event.text), data=data))
        )

    def show_table(self, title: str, rows: Sequence[Row], *, empty: str = "nothing yet") -> None:
        """Show rows under the keys of the first one, or `empty` if there are none."""
        cleaned = [self._clean(row) for row in rows]
        self._guard(lambda: self._table(self.redact(title), cleaned, empty))

    def show_plan(self, plan: Plan) -> None:
        """Show the steps of a plan by stage and host."""
        self._guard(lambda: self._plan(plan))

    def show_summary(self, headline: str, details: Mapping[str, Any] | None = None) -> None:
        """Show the result of an operation, with details such as the next commands."""
        cleaned = self._clean(details or {})
        self._guard(lambda: self._summary(self.redact(headline), cleaned))

    def close(self) -> None:
        """Flush the stream and end all animation. Idempotent."""
        self._guard(self._stream.flush)

    def _guard(self, show: Callable[[], None]) -> None:
        if self._muted:
            return
        try:
            show()
        except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
            self._muted = True
            if self._stream is sys.stdout:
                # Else the interpreter reports an error when it flushes at exit.
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


def format_duration(event: Event) -> str:
    """The duration of an event as ` (1.2 s)`, or an empty text if it has none."""
    seconds = event.data.get("seconds")
    return f" ({seconds:.1f} s)" if isinstance(seconds, (int, float)) else ""


def format_cell(value: Any) -> str:
    """A value as a table shows it: `-` for None, `yes` or `no`, lists separated by commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
