from __future__ import annotations

import typing as t
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amani_app.domain.errors import DomainError, IllegalTransition, InvalidEscrow, NotYourPart
from amani_app.domain.escrow import (
    Escrow,
    FeePolicy,
    Milestone,
    Party,
    Settlement,
    State,
    Work,
)
from amani_app.domain.money import Money

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
FREE, CLIENT, ARBITER = Party.FREELANCER, Party.CLIENT, Party.ARBITER


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


def draft(*amounts: int, bps: int = 500) -> Escrow:
    return Escrow(
        id="e1",
        title="A shop",
        client="ada",
        freelancer="ben",
        currency="NGN",
        fee=FeePolicy(bps),
        silence=timedelta(days=7),
        milestones=tuple(
            Milestone(f"m{i}", f"Part {i}", ngn(a)) for i, a in enumerate(amounts or (10_000,), 1)
        ),
    )


def funded(*amounts: int, bps: int = 500) -> Escrow:
    return draft(*amounts, bps=bps).accept(FREE).fund(CLIENT)


def in_state(work: Work) -> Escrow:
    """An escrow with a second milestone, so that it does not complete."""
    escrow = funded(10_000, 1)
    stated = replace(escrow.milestones[0], state=work, submitted_at=NOW)
    return replace(escrow, milestones=(stated, escrow.milestones[1]))


CLIENT_ONLY, FREELANCER_ONLY, ARBITER_ONLY = {CLIENT}, {FREE}, {ARBITER}
BOTH = {CLIENT, FREE}
ESCROW_RULES: dict[State, dict[str, tuple[set[Party], State]]] = {
    State.DRAFT: {
        "accept": (FREELANCER_ONLY, State.ACCEPTED),
        "cancel": (BOTH, State.CANCELLED),
    },
    State.ACCEPTED: {
        "fund": (CLIENT_ONLY, State.FUNDED),
        "cancel": (BOTH, State.CANCELLED),
    },
    # The first request of two: the escrow stays funded.
    State.FUNDED: {"cancel": (BOTH, State.FUNDED)},
    State.COMPLETED: {},
    State.CANCELLED: {},
}
MILESTONE_RULES: dict[Work, dict[str, tuple[set[Party], Work]]] = {
    Work.PLANNED: {},
    Work.FUNDED: {
        "submit": (FREELANCER_ONLY, Work.SUBMITTED),
        "dispute": (BOTH, Work.DISPUTED),
    },
    Work.SUBMITTED: {
        "approve": (CLIENT_ONLY, Work.RELEASED),
        "reject": (CLIENT_ONLY, Work.CHANGES_REQUESTED),
        "dispute": (BOTH, Work.DISPUTED),
        # No party: the agreed days have passed.
        "expire": (set(Party), Work.RELEASED),
    },
    Work.CHANGES_REQUESTED: {
        "submit": (FREELANCER_ONLY, Work.SUBMITTED),
        "dispute": (BOTH, Work.DISPUTED),
    },
    Work.DISPUTED: {
        "release": (ARBITER_ONLY, Work.RELEASED),
        "refund": (ARBITER_ONLY, Work.REFUNDED),
        "split": (ARBITER_ONLY, Work.SPLIT),
    },
    Work.RELEASED: {},
    Work.REFUNDED: {},
    Work.SPLIT: {},
    Work.CANCELLED: {},
}
"""By state and action: the parties that may act, and the state afterwards. Written out here, so
that a change of the tables in the domain fails."""

AGREEMENT_ACTIONS: dict[str, t.Callable[[Escrow, Party], object]] = {
    "accept": Escrow.accept,
    "fund": Escrow.fund,
    "cancel": Escrow.cancel,
}
WORK_ACTIONS: dict[str, t.Callable[[Escrow, Party], object]] = {
    "submit": lambda e, by: e.submit("m1", by, NOW),
    "approve": lambda e, by: e.approve("m1", by),
    "reject": lambda e, by: e.reject("m1", by),
    "dispute": lambda e, by: e.dispute("m1", by),
    "expire": lambda e, by: e.expire("m1", NOW + timedelta(days=7)),
    "release": lambda e, by: e.resolve("m1", by, 0),
    "refund": lambda e, by: e.resolve("m1", by, 10_000),
    "split": lambda e, by: e.resolve("m1", by, 4_000),
}


def result(done: object) -> Escrow:
    """The escrow that an action returns, with or without settlements."""
    after = done[0] if isinstance(done, tuple) else done
    assert isinstance(after, Escrow)
    return after


@pytest.mark.parametrize("party", Party)
@pytest.mark.parametrize("action", AGREEMENT_ACTIONS)
@pytest.mark.parametrize("state", State)
def test_escrow_transitions_follow_the_rules(state: State, action: str, party: Party) -> None:
    escrow, do = replace(draft(), state=state), AGREEMENT_ACTIONS[action]
    rules = ESCROW_RULES[state]
    if action not in rules:
        with pytest.raises(IllegalTransition) as caught:
            do(escrow, party)
        assert caught.value.allowed == tuple(sorted(rules))
    elif party not in rules[action][0]:
        with pytest.raises(NotYourPart):
            do(escrow, party)
    else:
        assert result(do(escrow, party)).state is rules[action][1]


@pytest.mark.parametrize("party", Party)
@pytest.mark.parametrize("action", WORK_ACTIONS)
@pytest.mark.parametrize("state", Work)
def test_milestone_transitions_follow_the_rules(state: Work, action: str, party: Party) -> None:
    escrow, do = in_state(state), WORK_ACTIONS[action]
    rules = MILESTONE_RULES[state]
    if action not in rules:
        with pytest.raises(IllegalTransition) as caught:
            do(escrow, party)
        assert caught.value.state == state.value
        assert set(caught.value.allowed) == set(rules)
    elif party not in rules[action][0]:
        with pytest.raises(NotYourPart):
            do(escrow, party)
    else:
        after = result(do(escrow, party))
        assert after.milestone("m1").state is rules[action][1]
        assert after.version == escrow.version + 1


def test_every_held_state_can_be_released() -> None:
    """No money can be stranded: the rules lead from each holding state to a final one."""
    ends = {Work.RELEASED, Work.REFUNDED, Work.SPLIT}
    for start in Work:
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            seen.add(state)
            todo += [after for _, after in MILESTONE_RULES[state].values() if after not in seen]
        assert bool(seen & ends) is (start.holds or start in ends)


@given(
    st.integers(1, 10**12),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
)
def test_resolution_pays_exactly_the_held_amount(amount: int, bps: int, back: int) -> None:
    _, paid = funded(amount, bps=bps).dispute("m1", CLIENT).resolve("m1", ARBITER, back)
    assert paid.to_client + paid.to_freelancer + paid.fee == ngn(amount)
    assert min(paid.to_client, paid.to_freelancer, paid.fee) >= ngn(0)


def test_approval_pays_freelancer_minus_fee() -> None:
    escrow = funded(10_000).submit("m1", FREE, NOW)
    after, paid = escrow.approve("m1", CLIENT)
    assert paid == Settlement("m1", Work.RELEASED, ngn(9_500), ngn(0), ngn(500))
    assert after.state is State.COMPLETED


def test_refund_charges_no_fee() -> None:
    _, paid = funded(10_000).dispute("m1", FREE).resolve("m1", ARBITER, 10_000)
    assert (paid.to_client, paid.to_freelancer, paid.fee) == (ngn(10_000), ngn(0), ngn(0))


def test_escrow_completes_with_its_last_milestone() -> None:
    escrow = funded(1_000, 2_000).submit("m1", FREE, NOW).submit("m2", FREE, NOW)
    escrow, _ = escrow.approve("m1", CLIENT)
    assert escrow.state is State.FUNDED
    escrow, _ = escrow.approve("m2", CLIENT)
    assert escrow.state is State.COMPLETED


def test_silence_approves_only_after_agreed_days() -> None:
    escrow = funded().submit("m1", FREE, NOW)
    with pytest.raises(IllegalTransition, match="within its days"):
        escrow.expire("m1", NOW + timedelta(days=7) - timedelta(seconds=1))
    after, paid = escrow.expire("m1", NOW + timedelta(days=7))
    assert (after.state, paid.to_freelancer) == (State.COMPLETED, ngn(9_500))


def test_rejection_restarts_the_silence_period() -> None:
    later = NOW + timedelta(days=6)
    escrow = funded().submit("m1", FREE, NOW).reject("m1", CLIENT)
    assert escrow.milestone("m1").submitted_at is None
    assert escrow.submit("m1", FREE, later).milestone("m1").submitted_at == later


def test_cancel_before_funding_needs_one_party_and_moves_nothing() -> None:
    escrow, refunds = draft().accept(FREE).cancel(CLIENT)
    assert (escrow.state, refunds) == (State.CANCELLED, ())
    assert escrow.milestone("m1").state is Work.CANCELLED


def test_cancel_after_funding_needs_both_parties() -> None:
    escrow = funded(1_000, 2_000).submit("m1", FREE, NOW)
    escrow, _ = escrow.approve("m1", CLIENT)
    asked, refunds = escrow.cancel(FREE)
    assert (asked.state, asked.cancel_asked_by, refunds) == (State.FUNDED, FREE, ())
    again, refunds = asked.cancel(FREE)
    assert (again.state, refunds) == (State.FUNDED, ())
    ended, refunds = again.cancel(CLIENT)
    assert ended.state is State.CANCELLED
    assert [(r.milestone, r.to_client, r.fee) for r in refunds] == [("m2", ngn(2_000), ngn(0))]
    assert [m.state for m in ended.milestones] == [Work.RELEASED, Work.REFUNDED]


def test_cancel_request_is_void_after_a_work_transition() -> None:
    asked, _ = funded().cancel(CLIENT)
    moved = asked.submit("m1", FREE, NOW)
    assert moved.cancel_asked_by is None
    still, refunds = moved.cancel(FREE)
    assert (still.state, refunds) == (State.FUNDED, ())


def test_cancel_with_open_dispute_is_rejected() -> None:
    with pytest.raises(IllegalTransition, match="in dispute"):
        funded().dispute("m1", FREE).cancel(CLIENT)


def wrong(**changes: t.Any) -> t.Callable[[], object]:
    return lambda: replace(draft(), **changes)


@pytest.mark.parametrize(
    "make",
    [
        wrong(freelancer="ada"),
        wrong(milestones=()),
        wrong(milestones=tuple(Milestone(f"m{i}", "x", ngn(1)) for i in range(51))),
        wrong(milestones=(Milestone("m", "x", Money(1, "USD")),)),
        wrong(silence=timedelta(hours=23)),
        wrong(silence=timedelta(days=61)),
        wrong(title=" "),
        lambda: Milestone("m", "x", ngn(0)),
        lambda: Milestone("m", "", ngn(1)),
        lambda: FeePolicy(-1),
        lambda: FeePolicy(10_001),
        lambda: funded().dispute("m1", FREE).resolve("m1", ARBITER, 10_001),
    ],
)
def test_invalid_escrow_is_rejected(make: t.Callable[[], object]) -> None:
    with pytest.raises(InvalidEscrow):
        make()


def test_unknown_milestone_raises_key_error() -> None:
    with pytest.raises(KeyError):
        funded().submit("nothing", FREE, NOW)


def test_errors_share_a_base_and_have_stable_codes() -> None:
    codes = [error.code for error in DomainError.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_party_is_found_by_user() -> None:
    escrow = draft()
    assert [escrow.party(u) for u in ("ada", "ben", "eve")] == [CLIENT, FREE, None]
    assert escrow.amount == ngn(10_000)
