"""The outbox: events of committed units of work that need an action outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amani_app.application.common.acting import Context
from amani_app.application.common.queues import LEASE, Going, always, drain
from amani_app.ports.store import OutboxEvent, Store

SKIP_AT_ONCE = 1_000


class DeliverEvents:
    """Delivers each event to the listener of its topic, at least once.

    A listener must recognize a repeated event. If it raises, it gets the event again after the
    lease. Events without a listener count as delivered, except the topics `kept`, which wait.
    """

    name = "deliver-events"

    def __init__(
        self,
        context: Context,
        store: Store,
        listeners: Mapping[str, Callable[[str], None]],
        kept: Sequence[str] = (),
    ) -> None:
        self._context = context
        self._store = store
        self._listeners = listeners
        self._wanted = (*listeners, *kept)

    def __call__(self, going: Going = always) -> int:
        now = self._context.now()
        while going() and SKIP_AT_ONCE == self._store.run(
            lambda unit: unit.outbox.skip(self._wanted, now, SKIP_AT_ONCE)
        ):
            pass
        return drain(self._claim, self._do, going) if self._listeners else 0

    def _claim(self) -> OutboxEvent | None:
        now, topics = self._context.now(), tuple(self._listeners)
        return self._store.run(lambda unit: unit.outbox.claim(topics, now, now + LEASE))

    def _do(self, event: OutboxEvent) -> None:
        self._listeners[event.topic](event.subject)
        now = self._context.now()
        self._store.run(lambda unit: unit.outbox.delivered(event.id, now))
