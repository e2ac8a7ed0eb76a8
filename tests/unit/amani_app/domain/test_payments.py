"""States of deposits, withdrawals and virtual accounts, and their bookings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from amani_app.domain.errors import LedgerError
from amani_app.domain.ledger import Account, AccountKind, Entry, receive
from amani_app.domain.money import Money
from amani_app.domain.payments import (
    CORRECTIONS,
    AccountState,
    Deposit,
    DepositState,
    Destination,
    VirtualAccount,
    Withdrawal,
    WithdrawalState,
)

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
BANK = Destination("044", "0123456789", "Ada Obi")
WALLET = Account(AccountKind.WALLET, "NGN", "ada")
PROVIDER, FEES = Account(AccountKind.PROVIDER, "NGN"), Account(AccountKind.FEES, "NGN")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


@pytest.mark.parametrize(
    ("state", "final", "corrected", "paid"),
    [
        (WithdrawalState.REQUESTED, False, False, False),
        (WithdrawalState.SENDING, False, False, False),
        (WithdrawalState.PROCESSING, False, False, False),
        (WithdrawalState.PAID, True, False, True),
        (WithdrawalState.FAILED, True, False, False),
        (WithdrawalState.RETURNED, True, True, False),
        (WithdrawalState.PAID_LATE, True, True, True),
    ],
)
def test_withdrawal_states_are_final_corrected_or_paid(
    state: WithdrawalState, final: bool, corrected: bool, paid: bool
) -> None:
    assert (state.final, state.corrected, state.paid) == (final, corrected, paid)


def test_each_final_state_is_corrected_once_to_its_opposite() -> None:
    assert dict(CORRECTIONS) == {
        WithdrawalState.PAID: WithdrawalState.RETURNED,
        WithdrawalState.FAILED: WithdrawalState.PAID_LATE,
    }


def test_credited_and_suspended_deposits_are_booked() -> None:
    booked = {state for state in DepositState if state.booked}
    assert booked == {DepositState.CREDITED, DepositState.SUSPENDED}


def test_account_is_open_until_declined_or_closed() -> None:
    open_ = {state for state in AccountState if state.open}
    assert open_ == {AccountState.REQUESTED, AccountState.PENDING, AccountState.ACTIVE}


def test_new_payments_are_requested_and_have_no_provider_data() -> None:
    account = VirtualAccount("v1", "ada", "NGN", NOW)
    assert account.state is AccountState.REQUESTED
    named = (account.provider_id, account.bank_name, account.account_number, account.account_name)
    assert (*named, account.failure) == ("",) * 5
    deposit = Deposit("d1", "ada", ngn(5), NOW)
    assert (deposit.state, deposit.link, deposit.received) == (DepositState.OPENING, "", None)
    withdrawal = Withdrawal("w1", "ada", ngn(5), BANK, NOW)
    assert withdrawal.state is WithdrawalState.REQUESTED
    assert (withdrawal.doubted_at, withdrawal.failure) == (None, "")


def test_account_numbers_stay_out_of_logs() -> None:
    account = VirtualAccount("v1", "ada", "NGN", NOW)
    assert "9900000001" not in repr(replace(account, account_number="9900000001"))
    assert BANK.masked == "******6789"
    assert repr(BANK) == "Destination(044, ******6789)"


def test_receipt_books_provider_fee_as_an_expense() -> None:
    made = receive("t1", "deposit", "d1", ngn(3), (WALLET, ngn(100)))
    assert (made.id, made.reason, made.reference) == ("t1", "deposit", "d1")
    assert made.entries == (
        Entry(PROVIDER, ngn(-97)),
        Entry(FEES, ngn(-3)),
        Entry(WALLET, ngn(100)),
    )
    free = receive("t1", "deposit", "d1", ngn(0), (WALLET, ngn(100)), (FEES, ngn(0)))
    assert free.entries == (Entry(PROVIDER, ngn(-100)), Entry(WALLET, ngn(100)))
    with pytest.raises(LedgerError, match="^deposit: nothing moves$"):
        receive("t1", "deposit", "d1", ngn(0), (WALLET, ngn(0)))
