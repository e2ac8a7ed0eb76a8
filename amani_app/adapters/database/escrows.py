"""Escrows in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Integer, bindparam, insert, or_, select, update

from amani_app.adapters.database.prepared import Prepared
from amani_app.adapters.database.statements import Statements
from amani_app.adapters.database.tables import escrows, milestones
from amani_app.domain.escrow import Escrow, FeePolicy, Milestone, Party, EscrowState, MilestoneState
from amani_app.domain.money import Money
from amani_app.ports.store import StaleVersion

_JOINED = (
    select(escrows, *(c.label(f"m_{c.name}") for c in milestones.c if c.name != "escrow_id"))
    .select_from(escrows.join(milestones, milestones.c.escrow_id == escrows.c.id))
    .order_by(escrows.c.id.desc(), milestones.c.position)
)
_ID = escrows.c.id == bindparam("wanted")
_ONE = Prepared(_JOINED.where(_ID))
_ONE_LOCKED = Prepared(_JOINED.where(_ID).with_for_update(of=escrows))
_SAVE = Prepared(update(escrows).where(_ID, escrows.c.version == bindparam("was")))
_SAVE_MILESTONE = Prepared(update(milestones).where(milestones.c.id == bindparam("wanted")))


@cache
def _page(party: Party | None, narrowed: bool, further: bool) -> Prepared:
    """The newest escrows of a user; `narrowed` to a state, and with `further` before an id."""
    user = bindparam("user", type_=escrows.c.client_id.type)
    parts = {
        Party.CLIENT: escrows.c.client_id == user,
        Party.FREELANCER: escrows.c.freelancer_id == user,
    }
    ids = select(escrows.c.id).where(parts[party] if party else or_(*parts.values()))
    if narrowed:
        ids = ids.where(escrows.c.state == bindparam("in_state"))
    if further:
        ids = ids.where(escrows.c.id < bindparam("before"))
    ids = ids.order_by(escrows.c.id.desc()).limit(bindparam("most", type_=Integer()))
    return Prepared(_JOINED.where(escrows.c.id.in_(ids)))


class DatabaseEscrows:
    """An escrow is one row, with one more row for each of its milestones."""

    def __init__(self, statements: Statements) -> None:
        self._run = statements.now
        self._ask = statements.ask
        self._later = statements.later
        self._read: dict[str, Escrow] = {}
        self._locked: set[str] = set()

    def add(self, escrow: Escrow, at: datetime) -> None:
        self._run(
            insert(escrows).values(
                id=escrow.id,
                title=escrow.title,
                client_id=escrow.client,
                freelancer_id=escrow.freelancer,
                currency=escrow.currency,
                fee_basis_points=escrow.fee.basis_points,
                silence_days=escrow.silence.days,
                created_at=at,
                **_escrow_values(escrow),
            )
        )
        rows = [
            {
                "id": milestone.id,
                "escrow_id": escrow.id,
                "position": position,
                "title": milestone.title,
                "amount": milestone.amount.minor,
                "due": milestone.due,
                **_milestone_values(milestone, escrow),
            }
            for position, milestone in enumerate(escrow.milestones)
        ]
        self._run(insert(milestones), rows)

    def get(self, id: str, lock: bool = False) -> Escrow:
        """One statement; the lock is on the escrow's row only, which protects its milestones as
        well."""
        (rows,) = self._ask((_ONE_LOCKED if lock else _ONE, {"wanted": id}))
        found = self._assemble(rows)
        if not found:
            raise KeyError(id)
        if lock:
            self._locked.add(id)
        self._read[id] = found[0]
        return found[0]

    def save(self, escrow: Escrow) -> None:
        """Updates the escrow's row, and the rows of changed milestones."""
        before = self._read.get(escrow.id)
        row = {"wanted": escrow.id, "was": escrow.version - 1, **_escrow_values(escrow)}
        if escrow.id in self._locked and before and before.version == escrow.version - 1:
            self._later(_SAVE, row)
        elif not self._run(_SAVE.statement, row).rowcount:
            raise StaleVersion(f"the escrow {escrow.id} has changed since it was read")
        known = {m.id: m for m in before.milestones} if before else {}
        for milestone in escrow.milestones:
            if known.get(milestone.id) != milestone:
                self._later(
                    _SAVE_MILESTONE,
                    {"wanted": milestone.id, **_milestone_values(milestone, escrow)},
                )
        self._read[escrow.id] = escrow

    def of(
        self,
        user: str,
        before: str | None,
        limit: int,
        state: EscrowState | None = None,
        party: Party | None = None,
    ) -> list[Escrow]:
        """One statement for all escrows and their milestones."""
        row: dict[str, Any] = {"user": user, "most": limit}
        if state is not None:
            row["in_state"] = state.value
        if before is not None:
            row["before"] = before
        (rows,) = self._ask((_page(party, state is not None, before is not None), row))
        return self._assemble(rows)

    def silent_since(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Uses the index on state and `expires_at`; the longest overdue come first."""
        due = (milestones.c.state == MilestoneState.SUBMITTED.value) & (
            milestones.c.expires_at <= now
        )
        query = select(milestones.c.escrow_id, milestones.c.id).where(due)
        rows = self._run(query.order_by(milestones.c.expires_at).limit(limit))
        return [(row.escrow_id, row.id) for row in rows]

    def _assemble(self, rows: Sequence[Any]) -> list[Escrow]:
        grouped: dict[str, list[Any]] = {}
        for row in rows:
            grouped.setdefault(row.id, []).append(row)
        return [_escrow(group) for group in grouped.values()]


def _escrow(rows: list[Any]) -> Escrow:
    first = rows[0]
    return Escrow(
        id=first.id,
        title=first.title,
        client=first.client_id,
        freelancer=first.freelancer_id,
        currency=first.currency,
        fee=FeePolicy(first.fee_basis_points),
        silence=timedelta(days=first.silence_days),
        milestones=tuple(
            Milestone(
                row.m_id,
                row.m_title,
                Money(row.m_amount, first.currency),
                row.m_due,
                MilestoneState(row.m_state),
                row.m_submitted_at,
            )
            for row in rows
        ),
        state=EscrowState(first.state),
        cancel_asked_by=Party(first.cancel_asked_by) if first.cancel_asked_by else None,
        version=first.version,
    )


def _escrow_values(escrow: Escrow) -> dict[str, Any]:
    asked = escrow.cancel_asked_by
    return {
        "state": escrow.state.value,
        "cancel_asked_by": asked.value if asked else None,
        "version": escrow.version,
    }


def _milestone_values(milestone: Milestone, escrow: Escrow) -> dict[str, Any]:
    at = milestone.submitted_at
    return {
        "state": milestone.state.value,
        "submitted_at": at,
        "expires_at": at + escrow.silence if at else None,
    }
