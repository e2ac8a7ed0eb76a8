"""Deposits, virtual accounts, withdrawals, and the queues of notices and events, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Self, TypeVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from amani_app.domain.payments import (
    AccountState,
    Deposit,
    DepositState,
    VirtualAccount,
    Withdrawal,
)
from amani_app.ports.payments import ProviderNotice
from amani_app.ports.store import OutboxEvent

Item = TypeVar("Item", Deposit, VirtualAccount, Withdrawal)
ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class QueueEntry:
    """The due time of an item, or `None`, and the number of its claims."""

    due: datetime | None
    attempts: int = 0


@dataclass
class MemoryTable(Generic[Item]):
    """Items by id, each with its ticket."""

    items: dict[str, Item] = field(default_factory=dict)
    tickets: dict[str, QueueEntry] = field(default_factory=dict)

    def copy(self) -> Self:
        return type(self)(self.items.copy(), self.tickets.copy())

    def add(self, item: Item, due: datetime | None = None) -> None:
        self.items[item.id] = item
        self.tickets[item.id] = QueueEntry(due)

    def get(self, id: str, lock: bool = False) -> Item:
        """`lock` has no effect, because there is one writer at a time."""
        return self.items[id]

    def save(self, item: Item, due: datetime | None) -> None:
        self.items[item.id] = item
        self.tickets[item.id] = replace(self.tickets[item.id], due=due)

    def of(self, owner: str, before: str | None, limit: int) -> list[Item]:
        """Sorted by id, which grows with time."""
        mine = (x for x in self.items.values() if x.owner == owner)
        found = (x for x in mine if before is None or x.id < before)
        return sorted(found, key=lambda x: x.id, reverse=True)[:limit]

    def claim(self, now: datetime, until: datetime) -> tuple[Item, int] | None:
        """The one that has been due for longest."""
        id = claim_ticket(self.tickets, now, until)
        return (self.items[id], self.tickets[id].attempts) if id else None

    def waiting(self) -> list[Item]:
        """Items that have a due time, without deposits that have no payment link yet."""
        return [
            item
            for id, item in self.items.items()
            if self.tickets[id].due is not None and item.state is not DepositState.OPENING
        ]


class MemoryVirtualAccounts(MemoryTable[VirtualAccount]):
    """Virtual accounts, found by scanning all items."""

    def named(self, provider_id: str) -> VirtualAccount | None:
        found = (x for x in self.items.values() if x.provider_id == provider_id)
        return next(found, None)

    def active(self, account_number: str, currency: str) -> VirtualAccount | None:
        wanted = (account_number, currency, AccountState.ACTIVE)
        found = [
            x for x in self.items.values() if (x.account_number, x.currency, x.state) == wanted
        ]
        return found[0] if len(found) == 1 else None

    def issued(self) -> list[VirtualAccount]:
        return [x for x in self.items.values() if x.account_number]


class MemoryInbox:
    """Notices by fingerprint, with their tickets and outcomes."""

    def __init__(
        self,
        notices: dict[str, ProviderNotice],
        tickets: dict[str, QueueEntry],
        outcomes: dict[str, str],
    ) -> None:
        self._notices = notices
        self._tickets = tickets
        self._outcomes = outcomes

    def add(self, notice: ProviderNotice, raw: bytes, at: datetime) -> bool:
        id = notice.fingerprint(raw)
        known = id in self._notices
        if not known or self._outcomes.get(id) in notice.renewable:
            self._notices[id], self._tickets[id] = notice, QueueEntry(at)
            self._outcomes.pop(id, None)
        return not known

    def claim(self, now: datetime, until: datetime) -> tuple[str, ProviderNotice, int] | None:
        """The one that has been due for longest."""
        id = claim_ticket(self._tickets, now, until)
        return (id, self._notices[id], self._tickets[id].attempts) if id else None

    def finish(self, id: str, outcome: str) -> None:
        self._outcomes[id] = outcome
        self._tickets[id] = replace(self._tickets[id], due=None)

    def put_off(self, id: str, due: datetime) -> None:
        self._tickets[id] = replace(self._tickets[id], due=due)


class MemoryOutbox:
    """Events in the order of their publication, with leases by id."""

    def __init__(
        self, events: list[OutboxEvent], leases: dict[str, datetime], delivered: dict[str, datetime]
    ) -> None:
        self._events = events
        self._leases = leases
        self._delivered = delivered

    def claim(self, topics: Sequence[str], now: datetime, until: datetime) -> OutboxEvent | None:
        for event in self._events:
            due = self._leases.get(event.id, ALWAYS)
            if event.id not in self._delivered and event.topic in topics and due <= now:
                self._leases[event.id] = until
                return event
        return None

    def delivered(self, id: str, at: datetime) -> None:
        self._delivered[id] = at

    def skip(self, topics: Sequence[str], at: datetime, limit: int) -> int:
        """The oldest events first, in the order of publication."""
        others = [
            event.id
            for event in self._events
            if event.id not in self._delivered and event.topic not in topics
        ][:limit]
        self._delivered.update(dict.fromkeys(others, at))
        return len(others)

    def forget(self, before: datetime) -> int:
        old = {id for id, at in self._delivered.items() if at < before}
        self._events[:] = [event for event in self._events if event.id not in old]
        for id in old:
            del self._delivered[id]
        return len(old)


def claim_ticket(tickets: dict[str, QueueEntry], now: datetime, until: datetime) -> str | None:
    """The id of the ticket that has been due for longest, claimed `until` then."""
    due = [(ticket.due, id) for id, ticket in tickets.items() if ticket.due and ticket.due <= now]
    if not due:
        return None
    id = min(due)[1]
    tickets[id] = QueueEntry(until, tickets[id].attempts + 1)
    return id
