"""Escrows: create, accept, fund, submit, approve, reject, dispute, resolve, cancel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from amani_app.application.common.acting import CLOCK, Actor, Forbidden, NotFound, Context
from amani_app.domain.errors import InvalidEscrow
from amani_app.domain.escrow import Escrow, FeePolicy, Milestone, Party, Settlement
from amani_app.domain.ledger import Account, AccountKind, Entry, Transaction, move
from amani_app.domain.money import Money
from amani_app.domain.users import Role
from amani_app.ports.store import StaleVersion, UnitOfWork

EXPIRE_AT_ONCE = 50
"""Milestones that the worker releases in one round after their days of silence."""


@dataclass(frozen=True)
class EscrowProposal:
    title: str
    freelancer_email: str
    currency: str
    silence_days: int
    milestones: tuple[tuple[str, Money, date | None], ...]


class EscrowUseCases:
    """Each method is one use case; call it inside a unit of work.

    An escrow of other parties is `NotFound`. `version` is the one that the actor has read; if the
    escrow has another one, `StaleVersion` is raised before anything happens.
    """

    def __init__(self, context: Context, fee: FeePolicy) -> None:
        self._context = context
        self._fee = fee

    def create(self, unit: UnitOfWork, actor: Actor, plan: EscrowProposal) -> Escrow:
        """The client proposes an escrow. Raises `InvalidEscrow` for invalid terms."""
        freelancer = unit.users.by_email(plan.freelancer_email.lower())
        if freelancer is None:
            raise InvalidEscrow(f"there is no user {plan.freelancer_email}")
        escrow = Escrow(
            id=self._context.new_id(),
            title=plan.title,
            client=actor.user,
            freelancer=freelancer.id,
            currency=plan.currency,
            fee=self._fee,
            silence=timedelta(days=plan.silence_days),
            milestones=tuple(
                Milestone(self._context.new_id(), title, amount, due)
                for title, amount, due in plan.milestones
            ),
        )
        unit.escrows.add(escrow, self._context.now())
        self._context.record(
            unit, actor, "escrow.created", escrow.id, "", escrow.state.value, to=freelancer.id
        )
        return escrow

    def read(self, unit: UnitOfWork, actor: Actor, id: str) -> Escrow:
        """Return an escrow of the actor; an arbiter may read any."""
        return self._found(unit, actor, id, lock=False)[0]

    def accept(self, unit: UnitOfWork, actor: Actor, id: str, version: int | None = None) -> Escrow:
        return self._change_escrow(unit, actor, id, version, "accepted", Escrow.accept)

    def fund(self, unit: UnitOfWork, actor: Actor, id: str, version: int | None = None) -> Escrow:
        """Move the whole price from the client's wallet into one hold for each milestone.

        Raises `InsufficientFunds`.
        """
        after = self._change_escrow(unit, actor, id, version, "funded", Escrow.fund)
        holds = ((_hold(m.id, m.amount), m.amount) for m in after.milestones)
        wallet = Account(AccountKind.WALLET, after.currency, after.client)
        unit.ledger.book(move(self._context.new_id(), "fund", id, wallet, *holds))
        return after

    def cancel(self, unit: UnitOfWork, actor: Actor, id: str, version: int | None = None) -> Escrow:
        """Before funding one party cancels; afterwards both must request it. Refunds the holds."""
        escrow, party = self._found(unit, actor, id, version=version)
        after, refunds = escrow.cancel(party)
        self._changed(unit, actor, escrow, after, "escrow.cancelled")
        if refunds:
            entries = [Entry(_hold(r.milestone, r.to_client), -r.to_client) for r in refunds]
            back = sum((r.to_client for r in refunds), Money.zero(after.currency))
            entries.append(Entry(Account(AccountKind.WALLET, after.currency, after.client), back))
            unit.ledger.book(Transaction(self._context.new_id(), "cancel", id, tuple(entries)))
        return after

    def submit(
        self, unit: UnitOfWork, actor: Actor, id: str, milestone: str, version: int | None = None
    ) -> Escrow:
        """The freelancer submits a milestone; the days of silence begin."""
        at = self._context.now()
        return self._change_milestone(
            unit,
            actor,
            id,
            milestone,
            version,
            "submitted",
            lambda e, p: e.submit(milestone, p, at),
        )

    def reject(
        self, unit: UnitOfWork, actor: Actor, id: str, milestone: str, version: int | None = None
    ) -> Escrow:
        return self._change_milestone(
            unit, actor, id, milestone, version, "rejected", lambda e, p: e.reject(milestone, p)
        )

    def dispute(
        self, unit: UnitOfWork, actor: Actor, id: str, milestone: str, version: int | None = None
    ) -> Escrow:
        """A party disputes a milestone; an arbiter then decides with `resolve`."""
        return self._change_milestone(
            unit, actor, id, milestone, version, "disputed", lambda e, p: e.dispute(milestone, p)
        )

    def approve(
        self, unit: UnitOfWork, actor: Actor, id: str, milestone: str, version: int | None = None
    ) -> Escrow:
        """The client approves: the hold is paid to the freelancer, less the fee."""
        return self._change_milestone(
            unit, actor, id, milestone, version, "released", lambda e, p: e.approve(milestone, p)
        )

    def resolve(
        self,
        unit: UnitOfWork,
        actor: Actor,
        id: str,
        milestone: str,
        to_client: int,
        version: int | None = None,
    ) -> Escrow:
        """The arbiter divides the hold: `to_client` basis points are refunded, the rest is paid.

        Raises `Forbidden` for any other role, and for an arbiter who is a party.
        """
        escrow = self._found(unit, actor, id, lock=False)[0]
        if actor.role is not Role.ARBITER or escrow.party(actor.user):
            raise Forbidden("only an arbiter who is not a party may resolve a dispute")
        return self._change_milestone(
            unit,
            actor,
            id,
            milestone,
            version,
            "resolved",
            lambda e, p: e.resolve(milestone, p, to_client),
        )

    def expire(self, unit: UnitOfWork, id: str, milestone: str) -> Escrow:
        """The days of silence count as approval. Raises `IllegalTransition` if days are left."""
        now = self._context.now()
        return self._change_milestone(
            unit, CLOCK, id, milestone, None, "expired", lambda e, _: e.expire(milestone, now)
        )

    def _change_escrow(
        self,
        unit: UnitOfWork,
        actor: Actor,
        id: str,
        version: int | None,
        topic: str,
        step: Callable[[Escrow, Party], Escrow],
    ) -> Escrow:
        escrow, party = self._found(unit, actor, id, version=version)
        after = step(escrow, party)
        self._changed(unit, actor, escrow, after, f"escrow.{topic}")
        return after

    def _change_milestone(
        self,
        unit: UnitOfWork,
        actor: Actor,
        id: str,
        milestone: str,
        version: int | None,
        topic: str,
        step: Callable[[Escrow, Party], Escrow | tuple[Escrow, Settlement]],
    ) -> Escrow:
        escrow, party = self._found(unit, actor, id, version=version)
        try:
            done = step(escrow, party)
        except KeyError:
            raise NotFound(f"no milestone {milestone} in the escrow {id}") from None
        after, paid = done if isinstance(done, tuple) else (done, None)
        self._changed(unit, actor, escrow, after, f"milestone.{topic}", milestone)
        if paid:
            self._book(unit, after, paid, topic)
        return after

    def _book(self, unit: UnitOfWork, escrow: Escrow, paid: Settlement, topic: str) -> None:
        held = paid.to_client + paid.to_freelancer + paid.fee
        to = escrow.currency
        unit.ledger.book(
            move(
                self._context.new_id(),
                topic,
                paid.milestone,
                _hold(paid.milestone, held),
                (Account(AccountKind.WALLET, to, escrow.freelancer), paid.to_freelancer),
                (Account(AccountKind.WALLET, to, escrow.client), paid.to_client),
                (Account(AccountKind.FEES, to), paid.fee),
            )
        )

    def _found(
        self,
        unit: UnitOfWork,
        actor: Actor,
        id: str,
        lock: bool = True,
        version: int | None = None,
    ) -> tuple[Escrow, Party]:
        try:
            escrow = unit.escrows.get(id, lock=lock)
        except KeyError:
            raise NotFound(f"no escrow {id}") from None
        party = escrow.party(actor.user)
        if actor is CLOCK:
            party = Party.CLOCK
        elif party is None and actor.role is Role.ARBITER:
            party = Party.ARBITER
        if party is None:
            raise NotFound(f"no escrow {id}")
        if version is not None and version != escrow.version:
            raise StaleVersion(f"the escrow {id} is at version {escrow.version}, not {version}")
        return escrow, party

    def _changed(
        self,
        unit: UnitOfWork,
        actor: Actor,
        before: Escrow,
        after: Escrow,
        topic: str,
        milestone: str = "",
    ) -> None:
        unit.escrows.save(after)
        self._context.record(
            unit,
            actor,
            topic,
            after.id,
            _state(before, milestone),
            _state(after, milestone),
            milestone=milestone,
            version=after.version,
        )


def _state(escrow: Escrow, milestone: str) -> str:
    state = escrow.state.value
    return f"{state}/{escrow.milestone(milestone).state.value}" if milestone else state


def _hold(milestone: str, amount: Money) -> Account:
    return Account(AccountKind.HOLD, amount.currency, milestone)
