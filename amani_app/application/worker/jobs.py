"""Periodic jobs of the worker; safe in many workers at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from amani_app.application.common.acting import NotFound
from amani_app.application.requests.escrows import EXPIRE_AT_ONCE, EscrowUseCases
from amani_app.application.common.queues import Going, always
from amani_app.domain.errors import IllegalTransition
from amani_app.ports.store import Store

KEEP_ANSWERS = timedelta(days=2)
"""Longer than the day for which a repeated request gets the first response."""
KEEP_EVENTS = timedelta(days=30)
"""After their delivery."""
FORGET_EVERY = timedelta(minutes=10)


class ExpireSilence:
    """Releases milestones whose days of silence are over."""

    name = "expire-silence"

    def __init__(self, store: Store, escrows: EscrowUseCases, now: Callable[[], datetime]) -> None:
        self._store = store
        self._escrows = escrows
        self._now = now

    def __call__(self, going: Going = always) -> int:
        """One transaction for each milestone, so that a failing one does not delay the others."""
        due = self._store.read(lambda unit: unit.escrows.silent_since(self._now(), EXPIRE_AT_ONCE))
        return sum(self._expire(escrow, milestone) for escrow, milestone in due if going())

    def _expire(self, escrow: str, milestone: str) -> int:
        try:
            self._store.run(lambda unit: self._escrows.expire(unit, escrow, milestone))
        except (IllegalTransition, NotFound):
            return 0  # The client or another worker was faster.
        return 1


class ForgetAnswers:
    """Deletes stored responses after `KEEP_ANSWERS`, and events after `KEEP_EVENTS`."""

    name = "forget-answers"

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._last = datetime.min.replace(tzinfo=UTC)

    def __call__(self, going: Going = always) -> int:
        if (now := self._now()) - self._last < FORGET_EVERY:
            return 0
        self._last = now
        return self._store.run(
            lambda unit: unit.idempotency.forget(now - KEEP_ANSWERS)
            + unit.outbox.forget(now - KEEP_EVENTS)
        )
