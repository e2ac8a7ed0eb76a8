from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amani_app.domain.errors import DomainError, IllegalTransition, InvalidEscrow, NotYourPart
from amani_app.domain.escrow import (
    Escrow,
    EscrowState,
    FeePolicy,
    Milestone,
    MilestoneState,
    Party,
    Settlement,
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


def in_state(state: MilestoneState) -> Escrow:
    """An escrow with a second milestone, so that it does not complete."""
    escrow = funded(10_000, 1)
    stated = replace(escrow.milestones[0], state=state, submitted_at=NOW)
    return replace(escrow, milestones=(stated, escrow.milestones[1]))


ESCROW_ACTIONS: dict[str, Callable[[Escrow, Party], object]] = {
    "accept": Escrow.accept,
    "fund": Escrow.fund,
    "cancel": Escrow.cancel,
}
MILESTONE_ACTIONS: dict[str, Callable[[Escrow, Party], object]] = {
    "submit": lambda e, by: e.submit("m1", by, NOW),
    "approve": lambda e, by: e.approve("m1", by),
    "reject": lambda e, by: e.reject("m1", by),
    "dispute": lambda e, by: e.dispute("m1", by),
    "release": lambda e, by: e.resolve("m1", by, 0),
    "refund": lambda e, by: e.resolve("m1", by, 10_000),
    "split": lambda e, by: e.resolve("m1", by, 4_000),
}

# The contract in words, independent of the tables in the code: state, action, who may, state after.
# A funded escrow stays funded after the first of two requests to cancel.
ESCROW_CONTRACT = """
draft     accept  freelancer         accepted
draft     cancel  client,freelancer  cancelled
accepted  fund    client             funded
accepted  cancel  client,freelancer  cancelled
funded    cancel  client,freelancer  funded
"""
MILESTONE_CONTRACT = """
funded             submit   freelancer         submitted
funded             dispute  client,freelancer  disputed
submitted          approve  client             released
submitted          reject   client             changes-requested
submitted          dispute  client,freelancer  disputed
changes-requested  submit   freelancer         submitted
changes-requested  dispute  client,freelancer  disputed
disputed           release  arbiter            released
disputed           refund   arbiter            refunded
disputed           split    arbiter            split
"""


def read_contract(text: str) -> dict[tuple[str, str], tuple[list[str], str]]:
    rows = (line.split() for line in text.strip().splitlines())
    return {(state, action): (who.split(","), after) for state, action, who, after in rows}


def allowed_in(text: str, state: str) -> set[str]:
    return {action for at, action in read_contract(text) if at == state}


def result(done: object) -> Escrow:
    after = done[0] if isinstance(done, tuple) else done
    assert isinstance(after, Escrow)
    return after


@pytest.mark.parametrize("party", Party)
@pytest.mark.parametrize("action", ESCROW_ACTIONS)
@pytest.mark.parametrize("state", EscrowState)
def test_escrow_transitions_follow_the_contract(
    state: EscrowState, action: str, party: Party
) -> None:
    escrow, act = replace(draft(), state=state), ESCROW_ACTIONS[action]
    rule = read_contract(ESCROW_CONTRACT).get((state.value, action))
    if rule is None:
        with pytest.raises(IllegalTransition) as caught:
            act(escrow, party)
        assert set(caught.value.allowed) == allowed_in(ESCROW_CONTRACT, state.value)
    elif party.value not in rule[0]:
        with pytest.raises(NotYourPart):
            act(escrow, party)
    else:
        after = result(act(escrow, party))
        assert (after.state.value, after.version) == (rule[1], escrow.version + 1)


@pytest.mark.parametrize("party", Party)
@pytest.mark.parametrize("action", MILESTONE_ACTIONS)
@pytest.mark.parametrize("state", MilestoneState)
def test_milestone_transitions_follow_the_contract(
    state: MilestoneState, action: str, party: Party
) -> None:
    escrow, act = in_state(state), MILESTONE_ACTIONS[action]
    rule = read_contract(MILESTONE_CONTRACT).get((state.value, action))
    if rule is None:
        with pytest.raises(IllegalTransition) as caught:
            act(escrow, party)
        assert caught.value.state == state.value
        # The clock is no party, but what it may do is listed as well.
        clock = {"expire"} if state is MilestoneState.SUBMITTED else set()
        assert set(caught.value.allowed) == allowed_in(MILESTONE_CONTRACT, state.value) | clock
    elif party.value not in rule[0]:
        with pytest.raises(NotYourPart):
            act(escrow, party)
    else:
        after = result(act(escrow, party))
        assert after.milestone("m1").state.value == rule[1]
        assert after.version == escrow.version + 1


@pytest.mark.parametrize("state", MilestoneState)
def test_only_a_submitted_milestone_expires(state: MilestoneState) -> None:
    escrow, now = in_state(state), NOW + timedelta(days=7)
    if state is MilestoneState.SUBMITTED:
        assert escrow.expire("m1", now)[0].milestone("m1").state is MilestoneState.RELEASED
    else:
        with pytest.raises(IllegalTransition):
            escrow.expire("m1", now)


@pytest.mark.parametrize("start", ["funded", "submitted", "changes-requested", "disputed"])
def test_no_money_is_stranded(start: str) -> None:
    """From each state that holds money, some actions of some parties lead to its end."""
    ends = {"released", "refunded", "split"}
    seen: set[str] = set()
    todo = [in_state(MilestoneState(start))]
    while todo:
        escrow = todo.pop()
        state = escrow.milestone("m1").state.value
        if state in seen:
            continue
        seen.add(state)
        for act in MILESTONE_ACTIONS.values():
            for party in Party:
                with suppress(IllegalTransition, NotYourPart):
                    todo.append(result(act(escrow, party)))
    assert ends <= seen


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
    assert paid == Settlement("m1", MilestoneState.RELEASED, ngn(9_500), ngn(0), ngn(500))
    assert after.state is EscrowState.COMPLETED


def test_refund_charges_no_fee() -> None:
    _, paid = funded(10_000).dispute("m1", FREE).resolve("m1", ARBITER, 10_000)
    assert (paid.to_client, paid.to_freelancer, paid.fee) == (ngn(10_000), ngn(0), ngn(0))


def test_escrow_completes_with_its_last_milestone() -> None:
    escrow = funded(1_000, 2_000).submit("m1", FREE, NOW).submit("m2", FREE, NOW)
    escrow, _ = escrow.approve("m1", CLIENT)
    assert escrow.state is EscrowState.FUNDED
    escrow, _ = escrow.approve("m2", CLIENT)
    assert escrow.state is EscrowState.COMPLETED


def test_silence_approves_only_after_agreed_days() -> None:
    escrow = funded().submit("m1", FREE, NOW)
    with pytest.raises(IllegalTransition, match="within its days"):
        escrow.expire("m1", NOW + timedelta(days=7) - timedelta(seconds=1))
    after, paid = escrow.expire("m1", NOW + timedelta(days=7))
    assert (after.state, paid.to_freelancer) == (EscrowState.COMPLETED, ngn(9_500))


def test_rejection_restarts_the_silence_period() -> None:
    later = NOW + timedelta(days=6)
    escrow = funded().submit("m1", FREE, NOW).reject("m1", CLIENT)
    assert escrow.milestone("m1").submitted_at is None
    assert escrow.submit("m1", FREE, later).milestone("m1").submitted_at == later


def test_cancel_before_funding_needs_one_party_and_moves_nothing() -> None:
    escrow, refunds = draft().accept(FREE).cancel(CLIENT)
    assert (escrow.state, refunds) == (EscrowState.CANCELLED, ())
    assert escrow.milestone("m1").state is MilestoneState.CANCELLED


def test_cancel_after_funding_needs_both_parties() -> None:
    escrow = funded(1_000, 2_000).submit("m1", FREE, NOW)
    escrow, _ = escrow.approve("m1", CLIENT)
    asked, refunds = escrow.cancel(FREE)
    assert (asked.state, asked.cancel_asked_by, refunds) == (EscrowState.FUNDED, FREE, ())
    again, refunds = asked.cancel(FREE)
    assert (again.state, refunds) == (EscrowState.FUNDED, ())
    ended, refunds = again.cancel(CLIENT)
    assert ended.state is EscrowState.CANCELLED
    assert [(r.milestone, r.to_client, r.fee) for r in refunds] == [("m2", ngn(2_000), ngn(0))]
    assert [m.state for m in ended.milestones] == [MilestoneState.RELEASED, MilestoneState.REFUNDED]


def test_cancel_request_is_void_after_a_work_transition() -> None:
    asked, _ = funded().cancel(CLIENT)
    moved = asked.submit("m1", FREE, NOW)
    assert moved.cancel_asked_by is None
    still, refunds = moved.cancel(FREE)
    assert (still.state, refunds) == (EscrowState.FUNDED, ())


def test_cancel_with_open_dispute_is_rejected() -> None:
    with pytest.raises(IllegalTransition, match="in dispute"):
        funded().dispute("m1", FREE).cancel(CLIENT)


def wrong(**changes: Any) -> Callable[[], object]:
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
def test_invalid_escrow_is_rejected(make: Callable[[], object]) -> None:
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
