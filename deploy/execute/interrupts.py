"""Ctrl-C and SIGTERM: both ask a run to stop, so a cancelled CI job goes back like a person."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_BOTH = (signal.SIGINT, signal.SIGTERM)


def stop() -> None:
    """Raise KeyboardInterrupt, wherever the main thread is."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def answered(by: Callable[[], None]) -> Iterator[None]:
    """Answer each interrupt inside the block by calling `by` in the main thread, between any two of
    its instructions: what it calls must bear that.

    Without an effect outside the main thread, where whoever runs us handles signals.
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
