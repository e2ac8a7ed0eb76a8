"""May this process be given traffic, and how is it?"""

from __future__ import annotations

import threading
import time
import typing as t
from dataclasses import dataclass

from amani_app.application.common.lifecycle import Lifecycle, Phase
from amani_app.ports.schema import DatabaseUnavailable, SchemaSource


@dataclass(frozen=True)
class SchemaState:
    """The live revision against the one this code needs."""

    live: str | None
    expected: str
    behind: bool

    @classmethod
    def judge(cls, live: str | None, expected: str, insufficient: frozenset[str]) -> SchemaState:
        """Behind is a database without a revision, or with one of ours that is not enough.

        A revision this code has never heard of belongs to a newer release, whose migrations keep
        to expand and contract: this code runs on it. Were it "not ready", every running process
        would leave the proxy the moment the next release migrates.
        """
        return cls(live, expected, behind=live is None or live in insufficient)


@dataclass(frozen=True)
class Readiness:
    """Ready or not, and the reason when not."""

    ready: bool
    reason: str = ""


class CheckReadiness:
    """Whether this process may be given traffic; asked often, so a yes is believed for a while.

    At most one thread asks the database at a time: while it waits for one that does not answer,
    the others repeat the last answer instead of filling the thread pool.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        schema: SchemaSource,
        cache: float,
        monotonic: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifecycle = lifecycle
        self._schema = schema
        self._cache = cache
        self._monotonic = monotonic
        self._asking = threading.Lock()
        self._last = Readiness(False, "the schema has not been read yet")
        self._believed_until = float("-inf")

    def __call__(self) -> Readiness:
        """The answer of this moment; never raises."""
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
            return Readiness(False, "the database is not reachable")
        if state.behind:
            return Readiness(
                False, f"the schema is behind: {state.live or 'empty'}, need {state.expected}"
            )
        return Readiness(True)


def read_schema(schema: SchemaSource) -> SchemaState:
    """Ask the database and judge its revision. Raises ``DatabaseUnavailable``."""
    return SchemaState.judge(schema.live(), schema.expected, schema.insufficient)


@dataclass(frozen=True)
class ServiceHealth:
    """How the process and its database are."""

    schema: SchemaState | None
    """``None`` when the database is not reachable."""
    milliseconds: float
    """How long the database took to answer, or to be given up."""

    @property
    def passing(self) -> bool:
        """Reachable, and not behind."""
        return self.schema is not None and not self.schema.behind


class CheckHealth:
    """Asks the database, every time."""

    def __init__(
        self, schema: SchemaSource, monotonic: t.Callable[[], float] = time.monotonic
    ) -> None:
        self._schema = schema
        self._monotonic = monotonic

    def __call__(self) -> ServiceHealth:
        """The state of this moment; never raises."""
        begun = self._monotonic()
        state: SchemaState | None
        try:
            state = read_schema(self._schema)
        except DatabaseUnavailable:
            state = None
        return ServiceHealth(state, round((self._monotonic() - begun) * 1000, 2))
