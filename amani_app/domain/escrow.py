"""The escrow: an agreement on milestones, and the transitions that move its money.

An `Escrow` is a value: each action returns a new one, with the `Settlement`s to book. Two
tables hold every allowed transition: `ESCROW_RULES` and `MILESTONE_RULES`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, cast
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from amani_app.domain.errors import IllegalTransition, InvalidEscrow, NotYourPart
from amani_app.domain.money import Money, total

MOST_MILESTONES = 50
WHOLE = 10_000
"""Basis points in one."""


class Party(enum.Enum):
    CLIENT = "client"
    FREELANCER = "freelancer"
    ARBITER = "arbiter"
    CLOCK = "clock"
    """The worker, after the agreed days of silence."""


class EscrowState(enum.Enum):
    DRAFT = "draft"
    ACCEPTED = "accepted"
    FUNDED = "funded"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class MilestoneState(enum.Enum):
    PLANNED = "planned"
    FUNDED = "funded"
    SUBMITTED = "submitted"
    CHANGES_REQUESTED = "changes-requested"
    DISPUTED = "disputed"
    RELEASED = "released"
    REFUNDED = "refunded"
    SPLIT = "split"
    CANCELLED = "cancelled"

    @property
    def holds(self) -> bool:
        """Whether the milestone's amount is held in this state."""
        return self in HOLDING


HOLDING = frozenset(
    {
        MilestoneState.FUNDED,
        MilestoneState.SUBMITTED,
        MilestoneState.CHANGES_REQUESTED,
        MilestoneState.DISPUTED,
    }
)

_BOTH = frozenset({Party.CLIENT, Party.FREELANCER})
_CLIENT, _FREELANCER = frozenset({Party.CLIENT}), frozenset({Party.FREELANCER})
_ARBITER, _CLOCK = frozenset({Party.ARBITER}), frozenset({Party.CLOCK})

Rule = tuple[frozenset[Party], Any]

ESCROW_RULES: Mapping[tuple[EscrowState, str], tuple[frozenset[Party], EscrowState]] = {
    (EscrowState.DRAFT, "accept"): (_FREELANCER, EscrowState.ACCEPTED),
    (EscrowState.DRAFT, "cancel"): (_BOTH, EscrowState.CANCELLED),
    (EscrowState.ACCEPTED, "fund"): (_CLIENT, EscrowState.FUNDED),
    (EscrowState.ACCEPTED, "cancel"): (_BOTH, EscrowState.CANCELLED),
    # Needs a request of both parties: see `Escrow.cancel`.
    (EscrowState.FUNDED, "cancel"): (_BOTH, EscrowState.CANCELLED),
}
"""(state, action) -> the parties that may take it, and the next state."""

MILESTONE_RULES: Mapping[tuple[MilestoneState, str], tuple[frozenset[Party], MilestoneState]] = {
    (MilestoneState.FUNDED, "submit"): (_FREELANCER, MilestoneState.SUBMITTED),
    (MilestoneState.CHANGES_REQUESTED, "submit"): (_FREELANCER, MilestoneState.SUBMITTED),
    (MilestoneState.SUBMITTED, "approve"): (_CLIENT, MilestoneState.RELEASED),
    (MilestoneState.SUBMITTED, "reject"): (_CLIENT, MilestoneState.CHANGES_REQUESTED),
    (MilestoneState.SUBMITTED, "expire"): (_CLOCK, MilestoneState.RELEASED),
    (MilestoneState.FUNDED, "dispute"): (_BOTH, MilestoneState.DISPUTED),
    (MilestoneState.SUBMITTED, "dispute"): (_BOTH, MilestoneState.DISPUTED),
    (MilestoneState.CHANGES_REQUESTED, "dispute"): (_BOTH, MilestoneState.DISPUTED),
    (MilestoneState.DISPUTED, "release"): (_ARBITER, MilestoneState.RELEASED),
    (MilestoneState.DISPUTED, "refund"): (_ARBITER, MilestoneState.REFUNDED),
    (MilestoneState.DISPUTED, "split"): (_ARBITER, MilestoneState.SPLIT),
}
"""(state, action) -> the parties that may take it, and the next state."""


@dataclass(frozen=True)
class FeePolicy:
    """Amani's share of each amount that a freelancer receives, in basis points."""

    basis_points: int

    def __post_init__(self) -> None:
        if not 0 <= self.basis_points <= WHOLE:
            raise InvalidEscrow(
                f"a fee of {self.basis_points} basis points is not within 0 to {WHOLE}"
            )

    def divide(self, amount: Money) -> tuple[Money, Money]:
        """`amount` divided into (net, fee); a rest of a minor unit goes to the larger remainder."""
        net, fee = amount.allocate((WHOLE - self.basis_points, self.basis_points))
        return net, fee


@dataclass(frozen=True)
class Milestone:
    """A part of an escrow with its own price and state."""

    id: str
    title: str
    amount: Money
    due: date | None = None
    state: MilestoneState = MilestoneState.PLANNED
    submitted_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.amount.minor <= 0:
            raise InvalidEscrow(f"the milestone {self.title!r} costs {self.amount}")
        if not 0 < len(self.title.strip()) <= 200:
            raise InvalidEscrow("a milestone needs a title of 1 to 200 characters")


@dataclass(frozen=True)
class Settlement:
    """How a milestone's hold ends; the three amounts add up to the hold."""

    milestone: str
    outcome: MilestoneState
    to_freelancer: Money
    to_client: Money
    fee: Money


@dataclass(frozen=True)
class Escrow:
    """An escrow between two users. Raises `InvalidEscrow` for invalid terms."""

    id: str
    title: str
    client: str
    freelancer: str
    currency: str
    fee: FeePolicy
    silence: timedelta
    """Time after a submission without an answer of the client that counts as approval."""
    milestones: tuple[Milestone, ...]
    state: EscrowState = EscrowState.DRAFT
    cancel_asked_by: Party | None = None
    version: int = 1
    """Incremented by every change; the ETag of the HTTP API."""

    def __post_init__(self) -> None:
        if self.client == self.freelancer:
            raise InvalidEscrow("client and freelancer must be different users")
        if not 0 < len(self.milestones) <= MOST_MILESTONES:
            raise InvalidEscrow(f"an escrow has 1 to {MOST_MILESTONES} milestones")
        if any(m.amount.currency != self.currency for m in self.milestones):
            raise InvalidEscrow(f"every milestone is paid in {self.currency}")
        if not timedelta(days=1) <= self.silence <= timedelta(days=60):
            raise InvalidEscrow("the days of silence must be 1 to 60")
        if not 0 < len(self.title.strip()) <= 200:
            raise InvalidEscrow("an escrow needs a title of 1 to 200 characters")

    @property
    def amount(self) -> Money:
        return total((m.amount for m in self.milestones), self.currency)

    def party(self, user: str) -> Party | None:
        """The role of `user` in the escrow; `None` if they are not a party."""
        return {self.client: Party.CLIENT, self.freelancer: Party.FREELANCER}.get(user)

    def milestone(self, id: str) -> Milestone:
        return {m.id: m for m in self.milestones}[id]

    def accept(self, by: Party) -> Escrow:
        return self._moved(state=self._agreed("accept", by))

    def fund(self, by: Party) -> Escrow:
        """The client funds it: the whole price is held, one hold for each milestone."""
        state = self._agreed("fund", by)
        held = tuple(replace(m, state=MilestoneState.FUNDED) for m in self.milestones)
        return self._moved(state=state, milestones=held)

    def cancel(self, by: Party) -> tuple[Escrow, tuple[Settlement, ...]]:
        """End it: before funding at once, afterwards when both parties have requested it.

        Holds are refunded to the client; released milestones stay released. Raises
        `IllegalTransition` while a milestone is disputed, because an arbiter decides on it.
        """
        state = self._agreed("cancel", by)
        if self.state is EscrowState.FUNDED:
            if any(m.state is MilestoneState.DISPUTED for m in self.milestones):
                raise IllegalTransition("the escrow", "in dispute", "cancel", ["resolve"])
            if self.cancel_asked_by in (None, by):
                return self._moved(cancel_asked_by=by), ()
        refunds = tuple(
            self._settle(m, MilestoneState.REFUNDED, m.amount)
            for m in self.milestones
            if m.state.holds
        )
        after = {MilestoneState.PLANNED: MilestoneState.CANCELLED} | dict.fromkeys(
            HOLDING, MilestoneState.REFUNDED
        )
        ended = tuple(replace(m, state=after.get(m.state, m.state)) for m in self.milestones)
        return self._moved(state=state, milestones=ended, cancel_asked_by=None), refunds

    def submit(self, id: str, by: Party, at: datetime) -> Escrow:
        """The freelancer delivers a milestone; the days of silence begin."""
        return self._worked(id, "submit", by, submitted_at=at)

    def reject(self, id: str, by: Party) -> Escrow:
        return self._worked(id, "reject", by, submitted_at=None)

    def dispute(self, id: str, by: Party) -> Escrow:
        """A party disputes a milestone; the hold stays until an arbiter resolves it."""
        return self._worked(id, "dispute", by)

    def approve(self, id: str, by: Party) -> tuple[Escrow, Settlement]:
        """The client approves: the hold is paid to the freelancer, less the fee."""
        return self._paid(id, "approve", by, to_client=0)

    def expire(self, id: str, now: datetime) -> tuple[Escrow, Settlement]:
        """The days of silence are over, which counts as approval.

        Raises `IllegalTransition` before that.
        """
        found = self.milestone(id)
        if found.submitted_at is not None and now < found.submitted_at + self.silence:
            raise IllegalTransition("the milestone", "within its days", "expire", ["approve"])
        return self._paid(id, "expire", Party.CLOCK, to_client=0)

    def resolve(self, id: str, by: Party, to_client: int) -> tuple[Escrow, Settlement]:
        """The arbiter divides the hold: `to_client` basis points are refunded, the rest is paid."""
        if not 0 <= to_client <= WHOLE:
            raise InvalidEscrow(f"the client's part is 0 to {WHOLE} basis points, not {to_client}")
        ruling = {0: "release", WHOLE: "refund"}.get(to_client, "split")
        return self._paid(id, ruling, by, to_client)

    def allowed(self) -> frozenset[str]:
        """The actions that the escrow's state allows."""
        return frozenset(action for state, action in ESCROW_RULES if state is self.state)

    def _agreed(self, action: str, by: Party) -> EscrowState:
        if (rule := ESCROW_RULES.get((self.state, action))) is None:
            raise IllegalTransition("the escrow", self.state.value, action, self.allowed())
        return cast(EscrowState, _permitted(rule, action, by))

    def _worked(self, id: str, action: str, by: Party, **changes: Any) -> Escrow:
        found = self.milestone(id)
        if (rule := MILESTONE_RULES.get((found.state, action))) is None:
            allowed = (name for state, name in MILESTONE_RULES if state is found.state)
            raise IllegalTransition("the milestone", found.state.value, action, allowed)
        done = replace(found, state=_permitted(rule, action, by), **changes)
        milestones = tuple(done if m.id == id else m for m in self.milestones)
        # A request to cancel was made for another state, so it lapses.
        over = not any(m.state.holds for m in milestones)
        state = EscrowState.COMPLETED if over else self.state
        return self._moved(state=state, milestones=milestones, cancel_asked_by=None)

    def _paid(self, id: str, action: str, by: Party, to_client: int) -> tuple[Escrow, Settlement]:
        after = self._worked(id, action, by)
        found = after.milestone(id)
        back, pay = found.amount.allocate((to_client, WHOLE - to_client))
        return after, self._settle(found, found.state, back, pay)

    def _settle(
        self, milestone: Milestone, outcome: MilestoneState, back: Money, pay: Money | None = None
    ) -> Settlement:
        net, fee = self.fee.divide(pay or Money.zero(self.currency))
        return Settlement(milestone.id, outcome, net, back, fee)

    def _moved(self, **changes: Any) -> Escrow:
        return replace(self, version=self.version + 1, **changes)


def _permitted(rule: Rule, action: str, by: Party) -> Any:
    parties, after = rule
    if by not in parties:
        names = " or ".join(sorted(party.value for party in parties))
        raise NotYourPart(f"{action} is allowed to the {names} only")
    return after
