"""Run the load generator in a process of its own and summarise its records."""

from __future__ import annotations

import json
import subprocess  # nosec B404 - argument lists of our own making only
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any, cast

from deploy.errors import DeployError
from deploy.machine.checkout import ROOT
from workshop.bench.load_generator import OK, Profile

Window = tuple[float, float]
"""Start and end, in seconds since the epoch."""


@dataclass(frozen=True)
class Records:
    """All requests of a run: start (seconds since the epoch), latency (seconds), outcome."""

    starts: Sequence[float]
    latencies: Sequence[float]
    outcomes: Sequence[str]
    reconnects: int = 0
    processor_seconds: float = 0.0

    @property
    def failures(self) -> dict[str, int]:
        """Failed requests by kind: status, connect, send, receive, closed, timeout."""
        return dict(Counter(outcome for outcome in self.outcomes if outcome != OK))

    def summary(self, windows: Sequence[Window] = ()) -> dict[str, Any]:
        """The figures as JSON values: latencies in milliseconds, inside and outside the windows."""
        inside: list[float] = []
        outside: list[float] = []
        for start, latency, outcome in zip(self.starts, self.latencies, self.outcomes, strict=True):
            if outcome == OK:
                # A request belongs to a window if any part of it overlaps.
                touched = any(a <= start + latency and start <= b for a, b in windows)
                (inside if touched else outside).append(latency)
        seconds = max(self.starts) - min(self.starts) if self.starts else 0.0
        return {
            "requests": len(self.starts),
            "failures": sum(self.failures.values()),
            "failures_by_kind": self.failures,
            "seconds": round(seconds, 1),
            "rate": round(len(self.starts) / seconds, 1) if seconds else 0.0,
            "inside_windows": _percentiles(inside),
            "outside_windows": _percentiles(outside),
            "reconnects": self.reconnects,
            "generator_processor_share": (
                round(self.processor_seconds / seconds, 3) if seconds else 0.0
            ),
        }


def _percentiles(latencies: list[float]) -> dict[str, float | int | None]:
    ordered = sorted(latencies)

    def at(share: float) -> float | None:
        if not ordered:
            return None
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"requests": len(ordered), "p50_ms": at(0.50), "p99_ms": at(0.99), "p999_ms": at(0.999)}


@dataclass
class Load:
    """A running load generator; `records` is set when the `with` block of `load` has ended."""

    _records: list[Records] = field(default_factory=list)

    @property
    def records(self) -> Records:
        """The records of the run. Raises `IndexError` before the `with` block has ended."""
        return self._records[0]


@contextmanager
def load(profile: Profile) -> Iterator[Load]:
    """Send requests while the block runs; it starts after the first answer.

    Raises `DeployError` if the generator ends before its first answer.
    """
    process = subprocess.Popen(  # nosec B603
        [sys.executable, "-m", "workshop.bench.load_generator"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    running = Load()
    try:
        _say(cast(IO[str], process.stdin), json.dumps(asdict(profile)))
        if cast(IO[str], process.stdout).readline() != "started\n":
            raise DeployError("the load generator ended before its first request was answered")
        yield running
        process.terminate()
        output, _ = process.communicate(timeout=2 * profile.timeout + 30)
        running._records.append(_read(output))
    finally:
        process.kill()
        process.wait()


def _say(stream: IO[str], line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


def _read(output: str) -> Records:
    return Records(**json.loads(output))
