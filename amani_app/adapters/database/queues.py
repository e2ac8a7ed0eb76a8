"""Rows that workers claim, and the inbox and outbox tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Table, delete, or_, select, update

from amani_app.adapters.database.statements import Statements
from amani_app.adapters.database.tables import inbox, outbox
from amani_app.ports.payments import ProviderNotice, NoticeKind
from amani_app.ports.store import OutboxEvent


def claim_row(
    statements: Statements, table: Table, until: datetime, *due: ColumnElement[bool]
) -> Row[Any] | None:
    """Lease the first row of `table` that is `due` `until` then; skips locked rows.

    The due time is the lease: the row of a worker that died is due again then.
    """
    first = select(table.c.id).where(*due).order_by(table.c.due_at, table.c.id).limit(1)
    chosen = first.with_for_update(skip_locked=True).scalar_subquery()
    return statements.now(
        update(table)
        .where(table.c.id == chosen)
        .values(due_at=until, attempts=table.c.attempts + 1)
        .returning(*table.c)
    ).first()


class DatabaseInbox:
    """One row for each notice; the primary key recognizes copies."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._run = statements.now

    def add(self, notice: ProviderNotice, raw: bytes, at: datetime) -> bool:
        """The primary key is the notice's fingerprint, because it has no id."""
        id = notice.fingerprint(raw)
        known = self._run(select(inbox.c.outcome).where(inbox.c.id == id)).first()
        if known is not None:
            again = (inbox.c.id == id) & inbox.c.outcome.in_(notice.renewable)
            self._run(update(inbox).where(again).values(outcome=None, due_at=at, attempts=0))
            return False
        row = {
            "id": id,
            "kind": notice.kind.value,
            "event": notice.event,
            "reference": notice.reference,
            "status": notice.status,
            # Valid JSON is UTF-8 without NUL; anything else is escaped.
            "body": "" if notice.personal else raw.decode("utf-8", "backslashreplace"),
            "received_at": at,
            "due_at": at,
        }
        upsert = insert_for(self._statements.dialect)
        done = self._run(upsert(inbox).values(row).on_conflict_do_nothing())
        return bool(done.rowcount)

    def claim(self, now: datetime, until: datetime) -> tuple[str, ProviderNotice, int] | None:
        """Uses the index on due time and id."""
        row = claim_row(self._statements, inbox, until, inbox.c.due_at <= now)
        if row is None:
            return None
        notice = ProviderNotice(NoticeKind(row.kind), row.event, row.reference, row.status)
        return row.id, notice, row.attempts

    def finish(self, id: str, outcome: str) -> None:
        self._run(update(inbox).where(inbox.c.id == id).values(outcome=outcome, due_at=None))

    def put_off(self, id: str, due: datetime) -> None:
        self._run(update(inbox).where(inbox.c.id == id).values(due_at=due))


class DatabaseOutbox:
    """One row for each event, kept after its delivery until `forget`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._run = statements.now

    def claim(self, topics: Sequence[str], now: datetime, until: datetime) -> OutboxEvent | None:
        """A new event has no due time, which means due."""
        c = outbox.c
        due = or_(c.due_at.is_(None), c.due_at <= now)
        wanted = c.delivered_at.is_(None)
        row = claim_row(self._statements, outbox, until, wanted, c.topic.in_(topics), due)
        if row is None:
            return None
        return OutboxEvent(row.id, row.topic, row.subject, json.loads(row.payload), row.created_at)

    def delivered(self, id: str, at: datetime) -> None:
        self._run(update(outbox).where(outbox.c.id == id).values(delivered_at=at))

    def skip(self, topics: Sequence[str], at: datetime, limit: int) -> int:
        """One statement, along the index of undelivered events."""
        c = outbox.c
        others = (
            select(c.id)
            .where(c.delivered_at.is_(None), c.topic.not_in(topics))
            .order_by(c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._run(update(outbox).where(c.id.in_(others)).values(delivered_at=at)).rowcount

    def forget(self, before: datetime) -> int:
        return self._run(delete(outbox).where(outbox.c.delivered_at < before)).rowcount


def insert_for(dialect: str) -> Any:
    """The `insert` of `dialect`, which knows ON CONFLICT."""
    # Imports only the dialect in use: each is a twentieth of the boot.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert
