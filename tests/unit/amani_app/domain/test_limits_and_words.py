"""Limits from both sides, identifiers of transactions, and messages of rejections: the mutants
that no other test kills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from amani_app.domain.errors import DomainError
from amani_app.domain.escrow import (
    Escrow,
    EscrowState,
    FeePolicy,
    Milestone,
    MilestoneState,
    Party,
    Settlement,
)
from amani_app.domain.ledger import Account, AccountKind, Entry, PendingTransfer, move, sums
from amani_app.domain.money import LARGEST, Money

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
WALLET = Account(AccountKind.WALLET, "NGN", "ada")
FEES = Account(AccountKind.FEES, "NGN")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


def milestone(title: str = "Part", id: str = "m1") -> Milestone:
    return Milestone(id, title, ngn(100))


def escrow(**changes: Any) -> Escrow:
    plain = {
        "id": "e1",
        "title": "A shop",
        "client": "ada",
        "freelancer": "ben",
        "currency": "NGN",
        "fee": FeePolicy(500),
        "silence": timedelta(days=7),
        "milestones": (milestone(), milestone(id="m2")),
    }
    return Escrow(**{**plain, **changes})


def funded() -> Escrow:
    return escrow().accept(Party.FREELANCER).fund(Party.CLIENT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: milestone("x"),
        lambda: milestone("x" * 200),
        lambda: escrow(title="x"),
        lambda: escrow(title="x" * 200),
        lambda: escrow(silence=timedelta(days=1)),
        lambda: escrow(silence=timedelta(days=60)),
        lambda: escrow(milestones=tuple(milestone(id=f"m{n}") for n in range(50))),
        lambda: PendingTransfer("p", "withdraw", "r", WALLET, ngn(1)),
        lambda: ngn(5).allocate([1]),
        lambda: ngn(LARGEST),
        lambda: FeePolicy(10_000),
    ],
)
def test_value_at_the_limit_is_accepted(make: Callable[[], object]) -> None:
    assert make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: milestone(" "), "^a milestone needs a title of 1 to 200 characters$"),
        (lambda: milestone("x" * 201), "^a milestone needs a title of 1 to 200 characters$"),
        (lambda: Milestone("m1", "Part", ngn(0)), "^the milestone 'Part' costs NGN 0.00$"),
        (lambda: escrow(title="x" * 201), "^an escrow needs a title of 1 to 200 characters$"),
        (lambda: escrow(freelancer="ada"), "^client and freelancer must be different users$"),
        (lambda: escrow(milestones=()), "^an escrow has 1 to 50 milestones$"),
        (lambda: escrow(currency="USD"), "^every milestone is paid in USD$"),
        (lambda: escrow(silence=timedelta(hours=23)), "^the days of silence must be 1 to 60$"),
        (lambda: FeePolicy(10_001), "^a fee of 10001 basis points is not within 0 to 10000$"),
        (lambda: funded().resolve("m1", Party.ARBITER, -1), "0 to 10000 basis points, not -1$"),
        (lambda: Account(AccountKind.WALLET, "NGN"), "^a wallet account has owner ''$"),
        (
            lambda: PendingTransfer("p", "w", "r", FEES, ngn(1)),
            "NGN 0.01 cannot be reserved on fees",
        ),
        (
            lambda: PendingTransfer("p", "w", "r", WALLET, ngn(0)),
            "^w: NGN 0.00 cannot be reserved$",
        ),
        (lambda: ngn(cast(int, 0.5)), "integer of minor units, not 0.5$"),
        (lambda: ngn(LARGEST + 1), f"^{LARGEST + 1} is beyond {LARGEST} minor units$"),
        (lambda: Money.parse("1.234", "NGN"), r"^'1.234' is no amount of NGN \(2 decimals at most"),
        (lambda: ngn(1).allocate([]), r"^NGN 0.01 cannot be divided by the weights \[\]$"),
        (lambda: Money(1, "XXX"), "^.XXX. is none of the currencies NGN, "),
        (
            lambda: escrow().fund(Party.CLIENT),
            r"^the escrow is draft: fund is not allowed \(allowed: accept, cancel\)$",
        ),
        (
            lambda: escrow().cancel(Party.ARBITER),
            "^cancel is allowed to the client or freelancer only$",
        ),
        (
            lambda: funded().approve("m1", Party.CLIENT),
            r"^the milestone is funded: approve is not allowed \(allowed: dispute, submit\)$",
        ),
        (
            lambda: funded().submit("m1", Party.CLIENT, NOW),
            "^submit is allowed to the freelancer only$",
        ),
        (
            lambda: funded().dispute("m1", Party.CLIENT).cancel(Party.CLIENT),
            r"^the escrow is in dispute: cancel is not allowed \(allowed: resolve\)$",
        ),
        (
            lambda: funded().submit("m1", Party.FREELANCER, NOW).expire("m1", NOW),
            r"^the milestone is within its days: expire is not allowed \(allowed: approve\)$",
        ),
        (
            lambda: replace(funded(), state=EscrowState.CANCELLED).cancel(Party.CLIENT),
            r"^the escrow is cancelled: cancel is not allowed \(allowed: nothing\)$",
        ),
    ],
)
def test_value_over_the_limit_is_rejected_with_message(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(DomainError, match=words):
        make()


def test_rejection_names_the_action() -> None:
    with pytest.raises(DomainError) as caught:
        escrow().fund(Party.CLIENT)
    assert vars(caught.value)["action"] == "fund"


def test_transaction_keeps_its_identifiers() -> None:
    moved = move("t1", "pay", "r1", WALLET, (FEES, ngn(7)))
    posted = PendingTransfer("p1", "withdraw", "r2", WALLET, ngn(7)).post(
        "t3", [Entry(FEES, ngn(7))]
    )
    assert [(each.id, each.reason, each.reference) for each in (moved, posted)] == [
        ("t1", "pay", "r1"),
        ("t3", "withdraw", "r2"),
    ]


def test_sums_keep_the_sign_of_entries() -> None:
    assert sums([Entry(FEES, ngn(7))]) == {"NGN": 7}


def test_remainder_goes_to_the_largest_fraction() -> None:
    assert ngn(10).allocate([1, 2]) == (ngn(3), ngn(7))
    assert ngn(5).allocate([2, 1]) == (ngn(3), ngn(2))
    assert ngn(10).allocate([20, 1, 9]) == (ngn(7), ngn(0), ngn(3))


def test_cancellation_by_both_refunds_and_clears_the_request() -> None:
    after, refunds = funded().cancel(Party.CLIENT)[0].cancel(Party.FREELANCER)
    assert after.cancel_asked_by is None
    assert refunds[0] == Settlement("m1", MilestoneState.REFUNDED, ngn(0), ngn(100), ngn(0))
