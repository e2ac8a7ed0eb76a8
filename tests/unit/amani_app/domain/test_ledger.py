from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amani_app.domain.errors import LedgerError
from amani_app.domain.ledger import (
    Account,
    AccountKind,
    Balance,
    Entry,
    PendingTransfer,
    Transaction,
    move,
    receive,
    sums,
)
from amani_app.domain.money import Money

ADA = Account(AccountKind.WALLET, "NGN", "ada")
BEN = Account(AccountKind.WALLET, "NGN", "ben")
FEES = Account(AccountKind.FEES, "NGN")
PROVIDER = Account(AccountKind.PROVIDER, "NGN")
SUSPENSE = Account(AccountKind.SUSPENSE, "NGN")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
def test_move_balances(amounts: list[int]) -> None:
    targets = [(Account(AccountKind.WALLET, "NGN", f"u{i}"), ngn(a)) for i, a in enumerate(amounts)]
    booked = move("t1", "pay", "r1", ADA, *targets)
    assert sums(booked.entries) == {"NGN": 0}


def test_target_of_zero_is_omitted() -> None:
    booked = move("t", "pay", "r", ADA, (BEN, ngn(10)), (FEES, ngn(0)))
    assert [e.account for e in booked.entries] == [ADA, BEN]


def test_move_of_zero_is_rejected() -> None:
    with pytest.raises(LedgerError, match="nothing moves"):
        move("t", "pay", "r", ADA, (BEN, ngn(0)))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([], "two entries"),
        ([(ADA, -5), (BEN, 4)], "sum to zero"),
        ([(ADA, -5), (ADA, 5)], "appears twice"),
    ],
)
def test_unbalanced_transaction_is_rejected(entries: list[tuple[Account, int]], why: str) -> None:
    with pytest.raises(LedgerError, match=why):
        Transaction("t", "pay", "r", tuple(Entry(a, ngn(m)) for a, m in entries))


def test_each_currency_balances_separately() -> None:
    dollars = Account(AccountKind.WALLET, "USD", "ada")
    with pytest.raises(LedgerError, match="sum to zero"):
        Transaction("t", "swap", "r", (Entry(ADA, ngn(-5)), Entry(dollars, Money(5, "USD"))))


def test_entry_is_nonzero_in_the_currency_of_its_account() -> None:
    with pytest.raises(LedgerError, match="does not belong"):
        Entry(ADA, Money(1, "USD"))
    with pytest.raises(LedgerError, match="of nothing"):
        Entry(ADA, ngn(0))


@pytest.mark.parametrize(
    ("kind", "owner"), [(AccountKind.WALLET, ""), (AccountKind.HOLD, ""), (AccountKind.FEES, "ada")]
)
def test_account_with_wrong_owner_is_rejected(kind: AccountKind, owner: str) -> None:
    with pytest.raises(LedgerError):
        Account(kind, "NGN", owner)


def test_pending_transfer_posts_the_full_reservation() -> None:
    pending = PendingTransfer("p", "withdraw", "w1", ADA, ngn(100))
    posted = pending.post("t", [Entry(PROVIDER, ngn(90)), Entry(FEES, ngn(10))])
    assert posted.settles == "p"
    assert posted.entries[0] == Entry(ADA, ngn(-100))
    with pytest.raises(LedgerError, match="sum to zero"):
        pending.post("t", [Entry(PROVIDER, ngn(99))])


@pytest.mark.parametrize(
    ("account", "amount"), [(FEES, ngn(1)), (ADA, ngn(0)), (ADA, ngn(-1)), (ADA, Money(1, "USD"))]
)
def test_only_positive_amounts_of_guarded_accounts_can_be_reserved(
    account: Account, amount: Money
) -> None:
    with pytest.raises(LedgerError):
        PendingTransfer("p", "withdraw", "w1", account, amount)


@pytest.mark.parametrize("fee", [0, 1, 99, 100])
def test_incoming_amount_is_credited_in_full_and_fee_is_expensed(fee: int) -> None:
    provider = Account(AccountKind.PROVIDER, "NGN")
    booked = receive(
        "t1", "inflow", "r1", ngn(fee), (ADA, ngn(70)), (BEN, ngn(30)), (SUSPENSE, ngn(0))
    )
    assert (booked.id, booked.reason, booked.reference) == ("t1", "inflow", "r1")
    assert booked.settles is None
    expected = {provider: fee - 100, FEES: -fee, ADA: 70, BEN: 30}
    found = {entry.account: entry.amount.minor for entry in booked.entries}
    assert found == {account: amount for account, amount in expected.items() if amount}
    assert sums(booked.entries) == {"NGN": 0}


def test_receipt_of_zero_is_rejected() -> None:
    with pytest.raises(LedgerError) as refused:
        receive("t1", "inflow", "r1", ngn(5), (ADA, ngn(0)))
    assert str(refused.value) == "inflow: nothing moves"


def test_reserved_amount_is_not_available() -> None:
    assert Balance(ngn(100), ngn(30)).available == ngn(70)


def test_account_id_contains_kind_owner_and_currency() -> None:
    assert (ADA.id, FEES.id) == ("wallet:ada:NGN", "fees:NGN")
