"""Bank transfer by hand: the adapter, the operator's commands, and a deposit and a payout."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from amani_app.adapters.manual.commands import make_bank_group
from amani_app.adapters.manual.payments import NAME_NOT_CHECKED, ManualPayments, sign
from amani_app.adapters.manual.records import TransferRecords
from amani_app.adapters.memory.store import MemoryStore
from amani_app.application.common.acting import Actor
from amani_app.application.provider.reconciliation import Reconcile
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.container import build_provider
from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import Money
from amani_app.domain.payments import DepositState, Destination, WithdrawalState
from amani_app.domain.users import Role, User
from amani_app.ports.payments import (
    AccountHolder,
    AnswerUnknown,
    ForgedNotice,
    NoticeKind,
    PaymentOutcome,
    PaymentRefused,
    ProviderUnavailable,
)
from tests.support.sandboxes import Running

SECRET = "m" * 32
PAYTO = "payto://iban/DE75512108001245126199"
BANK = Destination("044", "0123456789", "Ada Obi")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


@pytest.fixture
def records(tmp_path: Path) -> TransferRecords:
    return TransferRecords(f"sqlite:///{tmp_path}/transfers.sqlite3")


@pytest.fixture
def payments(records: TransferRecords) -> ManualPayments:
    return ManualPayments(records, PAYTO, SECRET)


class Operator:
    """Types `flask amani bank ...`."""

    def __init__(self, records: TransferRecords | None) -> None:
        self._group = make_bank_group((lambda: records) if records else None, SECRET)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self._group, list(words))

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.output.strip()


@pytest.fixture
def operator(records: TransferRecords) -> Operator:
    return Operator(records)


class TestDeposits:
    def test_a_checkout_names_account_amount_and_reference(self, payments: ManualPayments) -> None:
        link = payments.checkout("d1", ngn(150_050), "ada@example.org", "Ada")
        assert link == f"{PAYTO}?amount=NGN:1500.50&message=d1"
        found = payments.collection("d1")
        assert found is not None
        assert (found.outcome, found.received, found.link) == (PaymentOutcome.WAITING, ngn(0), link)

    def test_a_reference_is_used_once(self, payments: ManualPayments) -> None:
        payments.checkout("d1", ngn(1), "ada@example.org", "Ada")
        with pytest.raises(PaymentRefused, match="d1 was recorded before"):
            payments.checkout("d1", ngn(1), "ada@example.org", "Ada")

    def test_amounts_received_for_a_reference_are_summed(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        payments.checkout("d1", ngn(10_000), "ada@example.org", "Ada")
        for line, amount in (("b-1", "60.00"), ("b-2", "40")):
            operator.ok("received", "d1", amount, "--line", line)
        found = payments.collection("d1")
        assert found is not None
        assert (found.outcome, found.received) == (PaymentOutcome.SUCCESSFUL, ngn(10_000))
        assert payments.balance("NGN") == ngn(10_000)

    def test_a_line_of_the_statement_counts_once(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        operator.ok("received", "d1", "5", "--line", "b-1")
        again = operator.run("received", "d1", "5", "--line", "b-1")
        assert again.exit_code == 1 and "the line b-1 was recorded before" in again.output
        assert payments.balance("NGN") == ngn(500)

    def test_money_without_a_checkout_and_in_another_currency_is_reported(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        operator.ok("received", "typo", "5", "--line", "b-1")
        payments.checkout("d1", ngn(100), "ada@example.org", "Ada")
        operator.ok("received", "d1", "7", "--currency", "USD", "--line", "b-2")
        for reference, received in (("typo", ngn(500)), ("d1", Money(700, "USD"))):
            found = payments.collection(reference)
            assert found is not None
            assert (found.outcome, found.received) == (PaymentOutcome.SUCCESSFUL, received)
        assert payments.collection("d2") is None

    def test_a_deposit_that_never_arrives_fails_and_may_arrive_later(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        payments.checkout("d1", ngn(100), "ada@example.org", "Ada")
        operator.ok("failed", "d1")
        assert cast(Any, payments.collection("d1")).outcome is PaymentOutcome.FAILED
        operator.ok("received", "d1", "1", "--line", "b-1")
        assert cast(Any, payments.collection("d1")).outcome is PaymentOutcome.SUCCESSFUL
        assert operator.run("failed", "d1").exit_code == 1


class TestPayouts:
    def test_it_waits_until_the_operator_has_sent_it(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        made = payments.pay_out("w1", ngn(600), BANK)
        assert (made.outcome, made.fee) == (PaymentOutcome.WAITING, None)
        assert operator.ok("waiting") == "payout  w1  NGN 6.00  044  0123456789  Ada Obi"
        operator.ok("sent", "w1", "--fee", "53")
        found = payments.payout("w1")
        assert found is not None
        assert (found.outcome, found.amount, found.fee) == (
            PaymentOutcome.SUCCESSFUL,
            ngn(600),
            ngn(53),
        )
        assert operator.ok("waiting") == ""
        assert payments.balance("NGN") == ngn(-653)

    def test_a_repeated_reference_sends_nothing_and_is_answered_again(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        payments.pay_out("w1", ngn(600), BANK)
        operator.ok("failed", "w1", "--reason", "account closed")
        again = payments.pay_out("w1", ngn(300), BANK)
        assert (again.outcome, again.amount) == (PaymentOutcome.FAILED, ngn(600))
        assert again.reason == "account closed"
        assert payments.balance("NGN") == ngn(0)

    def test_the_name_of_a_payee_is_not_checked(self, payments: ManualPayments) -> None:
        assert payments.payee("044", "0123456789", "NGN") == NAME_NOT_CHECKED

    def test_a_deposit_is_no_payout_and_the_reverse(
        self, payments: ManualPayments, operator: Operator
    ) -> None:
        payments.checkout("d1", ngn(1), "ada@example.org", "Ada")
        payments.pay_out("w1", ngn(1), BANK)
        assert payments.payout("d1") is None and payments.collection("w1") is None
        with pytest.raises(PaymentRefused, match="is a deposit's"):
            payments.pay_out("d1", ngn(1), BANK)
        assert "there is no payout d1" in operator.run("sent", "d1").output


def test_virtual_accounts_are_refused(payments: ManualPayments) -> None:
    holder = AccountHolder("Ada", "Obi", "ada@example.org", "22212345678")
    with pytest.raises(PaymentRefused, match="no virtual accounts"):
        payments.request_account("v1", "NGN", holder)
    assert payments.account("v1") is None and payments.account_named("v1") is None
    assert payments.inflow("x") is None and payments.inflows("v1") == []


class TestNotices:
    def test_a_signed_notice_is_read(self, payments: ManualPayments) -> None:
        raw = b'{"event": "deposit.received", "data": {"reference": "d1", "line": "b-1"}}'
        found = payments.read_notice(raw, {"signature": sign(SECRET, raw)})
        assert (found.kind, found.reference, found.status) == (NoticeKind.COLLECTION, "d1", "b-1")

    @pytest.mark.parametrize("headers", [{}, {"signature": "0" * 64}, {"signature": "é"}])
    def test_a_forged_one_is_refused(
        self, payments: ManualPayments, headers: dict[str, str]
    ) -> None:
        with pytest.raises(ForgedNotice):
            payments.read_notice(b'{"event": "payout.sent", "data": {"reference": "w"}}', headers)

    @pytest.mark.parametrize(
        "raw",
        [
            b"no JSON",
            b"[]",
            b'{"event": "charge.successful", "data": {"reference": "d1"}}',
            b'{"event": "payout.sent", "data": {"reference": "a b"}}',
            b'{"event": "payout.sent", "data": {}}',
        ],
    )
    def test_body_that_is_no_notice_is_refused(self, payments: ManualPayments, raw: bytes) -> None:
        with pytest.raises(ValueError):
            payments.read_notice(raw, {"signature": sign(SECRET, raw)})


def test_unreachable_records_are_an_unavailable_provider(tmp_path: Path) -> None:
    payments = ManualPayments(TransferRecords(f"sqlite:///{tmp_path}/no/where"), PAYTO, SECRET)
    for ask in (payments.collection, payments.payout):
        with pytest.raises(ProviderUnavailable):
            ask("d1")
    with pytest.raises(ProviderUnavailable):
        payments.balance("NGN")
    with pytest.raises(AnswerUnknown):
        payments.checkout("d1", ngn(1), "ada@example.org", "Ada")
    with pytest.raises(AnswerUnknown):
        payments.pay_out("w1", ngn(1), BANK)


class TestCommands:
    def test_they_need_the_provider(self) -> None:
        done = Operator(None).run("waiting")
        assert done.exit_code == 2 and "MANUAL_PAYTO must be set" in done.output

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("received", "d1", "1.005", "--line", "b"), "1.005"),
            (("received", "d1", "0", "--line", "b"), "not a positive amount"),
            (("received", "d 1", "1", "--line", "b"), "letters, digits"),
            (("received", "d1", "1", "--line", "x" * 33), "letters, digits"),
            (("sent", "nothing"), "there is no payout nothing"),
            (("failed", "nothing"), "there is no deposit or payout nothing"),
        ],
    )
    def test_wrong_usage_records_nothing(
        self, operator: Operator, payments: ManualPayments, words: tuple[str, ...], said: str
    ) -> None:
        done = operator.run(*words)
        assert done.exit_code != 0 and said in done.output
        assert payments.collection("d1") is None

    def test_a_confirmation_notifies_the_webhook(
        self, operator: Operator, payments: ManualPayments
    ) -> None:
        payments.pay_out("w1", ngn(600), BANK)
        seen: list[tuple[bytes, str]] = []

        def webhook(environ: Any, start: Any) -> list[bytes]:
            raw = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            seen.append((raw, environ["HTTP_SIGNATURE"]))
            start("200 OK" if len(seen) == 1 else "503 Service Unavailable", [])
            return [b""]

        server = Running(webhook)
        try:
            assert operator.ok("sent", "w1", "--notify", server.url) == "recorded and notified"
            late = operator.run("failed", "w1", "--notify", server.url)
            assert late.exit_code == 1 and "recorded, but" in late.output and "503" in late.output
        finally:
            server.stop()
        raw, signature = seen[0]
        found = payments.read_notice(raw, {"signature": signature})
        assert (found.kind, found.event, found.reference) == (
            NoticeKind.PAYOUT,
            "payout.sent",
            "w1",
        )
        gone = operator.run("sent", "w1", "--notify", server.url)
        assert gone.exit_code == 1 and "did not answer" in gone.output


class Service:
    """Ada and the use cases on a store in memory, with bank transfer by hand as the provider."""

    def __init__(self, payments: ManualPayments) -> None:
        from amani_app.application.common.acting import Context

        self.time = datetime(2026, 11, 24, 9, tzinfo=UTC)
        numbers = itertools.count(1)
        context = Context(lambda: self.time, lambda: f"{next(numbers):09}")
        self.store = MemoryStore(context.now)
        self.payments = payments
        self.deposits, self.withdrawals = DepositUseCases(context), WithdrawalUseCases(context)
        accounts = VirtualAccountUseCases(context)
        self.provider = build_provider(
            "manual", context, self.store, payments, self.deposits, accounts, self.withdrawals
        )
        user = User("ada", "ada@example.org", "Ada", Role.MEMBER, "hash", self.time)
        self.store.run(lambda unit: unit.users.add(user))

    def notify(self, event: str, **data: str) -> None:
        raw = json.dumps({"event": event, "data": data}).encode()
        self.provider.notices.receive(raw, {"signature": sign(SECRET, raw)})
        self.provider.notices()

    def wallet(self) -> tuple[int, int]:
        account = Account(AccountKind.WALLET, "NGN", "ada")
        found = self.store.read(lambda unit: unit.ledger.balance(account))
        return found.posted.minor, found.reserved.minor


def test_a_deposit_and_a_withdrawal_go_through_the_whole_service(
    payments: ManualPayments, operator: Operator
) -> None:
    service, ada = Service(payments), Actor("ada")
    deposit = service.store.run(lambda unit: service.deposits.request(unit, ada, ngn(10_000)))
    opened = service.provider.checkouts.open(deposit.id)
    assert (opened.state, opened.link.partition("?")[0]) == (DepositState.PENDING, PAYTO)

    service.notify("deposit.received", reference=deposit.id, line="b-0")
    assert service.wallet() == (0, 0), "a notice moves no money"
    operator.ok("received", deposit.id, "100.00", "--line", "b-1")
    service.notify("deposit.received", reference=deposit.id, line="b-1")
    assert service.wallet() == (10_000, 0)

    ask = service.withdrawals.request
    withdrawal = service.store.run(lambda unit: ask(unit, ada, ngn(6_000), BANK))
    service.provider.payouts.send(withdrawal.id)
    operator.ok("sent", withdrawal.id, "--fee", "50")
    service.time += timedelta(minutes=10)
    service.provider.payouts()  # Without a notice, too.
    found = service.store.read(lambda unit: unit.withdrawals.get(withdrawal.id))
    assert found.state is WithdrawalState.PAID
    assert service.wallet() == (4_000, 0)
    assert Reconcile(service.store, payments)() == []
