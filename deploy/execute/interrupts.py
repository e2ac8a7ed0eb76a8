"""Ctrl-C and SIGTERM: both interrupt a run, so a cancelled CI job reverts like an operator."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_BOTH = (signal.SIGINT, signal.SIGTERM)


def raise_interrupt() -> None:
    """Raise `KeyboardInterrupt` in the main thread, as a handler for `handle`."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def handle(by: Callable[[], None]) -> Iterator[None]:
    """Call `by` for each interrupt inside the block, in the main thread and between any two of its
    instructions, as signal handlers are called.

    Has no effect outside the main thread: there the caller handles signals.
    """

    def answer(number: int, frame: FrameType | None) -> None:
        by()

    before: dict[signal.Signals, signal.Handlers | Callable[..., object] | int | None] = {}
    try:
        try:
            for number in _BOTH:
                before[number] = signal.signal(number, answer)
        except ValueError:  # not the main thread
            before.clear()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
