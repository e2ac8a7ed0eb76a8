"""Readiness: whether this process may receive traffic. Health: its state and the database's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from amani_app.application.common.lifecycle import Lifecycle, Phase
from amani_app.ports.schema import DatabaseUnavailable, SchemaSource


@dataclass(frozen=True)
class SchemaState:
    """The live revision, compared with the one that this code needs."""

    live: str | None
    expected: str
    behind: bool

    @classmethod
    def judge(cls, live: str | None, expected: str, insufficient: frozenset[str]) -> SchemaState:
        """A database is behind without a revision, or with a known one that is too old.

        An unknown revision belongs to a newer release, whose migrations keep to expand and
        contract, so this code runs on it. If it counted as "not ready", every running process
        would lose its traffic as soon as the next release migrates.
        """
        return cls(live, expected, behind=live is None or live in insufficient)


@dataclass(frozen=True)
class Readiness:
    """The result of a check; `reason` is empty if the process is ready."""

    ready: bool
    reason: str = ""


class CheckReadiness:
    """Whether this process may receive traffic. A positive result is cached.

    At most one thread queries the database at a time. While it waits for a database that does not
    answer, the others return the last result instead of filling the thread pool.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        schema: SchemaSource,
        cache: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifecycle = lifecycle
        self._schema = schema
        self._cache = cache
        self._monotonic = monotonic
        self._asking = threading.Lock()
        self._last = Readiness(False, "the schema has not been read yet")
        self._believed_until = float("-inf")

    def __call__(self) -> Readiness:
        """The current result; never raises."""
        if self._lifecycle.phase is not Phase.RUNNING:
            return Readiness(False, self._lifecycle.phase.value)
        if self._monotonic() < self._believed_until:
            return self._last
        if self._asking.acquire(blocking=False):
            try:
                self._last = self._ask()
                if self._last.ready:
                    self._believed_until = self._monotonic() + self._cache
            finally:
                self._asking.release()
        return self._last

    def _ask(self) -> Readiness:
        try:
            state = read_schema(self._schema)
        except DatabaseUnavailable:
            return Readiness(False, "the database is unreachable")
        if state.behind:
            return Readiness(
                False, f"the schema is behind: {state.live or 'empty'}, need {state.expected}"
            )
        return Readiness(True)


def read_schema(schema: SchemaSource) -> SchemaState:
    """Read the database's revision and compare it. Raises `DatabaseUnavailable`."""
    return SchemaState.judge(schema.live(), schema.expected, schema.insufficient)


@dataclass(frozen=True)
class ServiceHealth:
    """The health of the process and its database."""

    schema: SchemaState | None
    """`None` if the database is unreachable."""
    milliseconds: float
    """Time until the database answered or the query failed."""

    @property
    def passing(self) -> bool:
        return self.schema is not None and not self.schema.behind


class CheckHealth:
    def __init__(
        self, schema: SchemaSource, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._schema = schema
        self._monotonic = monotonic

    def __call__(self) -> ServiceHealth:
        """Queries the database at each call; never raises."""
        begun = self._monotonic()
        state: SchemaState | None
        try:
            state = read_schema(self._schema)
        except DatabaseUnavailable:
            state = None
        return ServiceHealth(state, round((self._monotonic() - begun) * 1000, 2))
