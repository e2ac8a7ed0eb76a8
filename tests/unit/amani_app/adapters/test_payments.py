"""The contract of the payment provider, in memory and for Fincra over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from amani_app.adapters.breaker import CircuitBreaker
from amani_app.adapters.fincra.client import FincraClient, FincraCredentials
from amani_app.adapters.fincra.notices import sign
from amani_app.adapters.fincra.payments import FincraPayments
from amani_app.adapters.fincra.sandbox.payments import NO_BVN, UNKNOWN_NUMBER, MemoryPayments
from amani_app.adapters.fincra.sandbox.webhooks import Switches, read_switches
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination
from amani_app.ports.payments import (
    AccountHolder,
    AnswerUnknown,
    ForgedNotice,
    NoticeKind,
    PaymentOutcome,
    PaymentRefused,
    Payments,
    ProviderUnavailable,
    UnknownPayee,
)
from tests.support.sandboxes import API_KEY, WEBHOOK_SECRET, Running, Sandbox
from tests.support.service_fixtures import Shell, free_port
from tests.support.waiting import eventually

BANK = Destination("044", "0123456789", "Ada Obi")
ADA = AccountHolder("Ada", "Obi", "ada@example.org", "22212345678")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


NUMBER = {"accountNumber": "9900000000", "accountName": "Ada", "bankName": "A\x00bank"}


@contextlib.contextmanager
def telling(data: Any) -> Iterator[FincraPayments]:
    """A provider whose answers all contain `data`."""

    def answer(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"success": True, "data": data}).encode()]

    server = Running(answer)
    try:
        yield FincraPayments(FincraCredentials(server.url, "k", "p", "b", "s"))
    finally:
        server.stop()


class World(NamedTuple):
    payments: Payments
    books: MemoryPayments
    secret: str
    issue: Callable[[str], None]
    """Sets the status of virtual accounts that are requested from now on."""
    charge: Callable[[str], None]
    """Sets the fee of a payout from now on."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture(params=["memory", "fincra"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        twin = MemoryPayments()

        def issue(word: str) -> None:
            twin.accounts = AccountState(word)

        def charge(major: str) -> None:
            twin.fee = Money.parse(major, "NGN").minor

        return World(twin, twin, twin.secret, issue, charge)
    sandbox: Sandbox = request.getfixturevalue("sandbox")

    def turn(word: str) -> None:
        sandbox.switches.turn({"accounts": word})

    def cost(major: str) -> None:
        sandbox.switches.turn({"payout_fee": float(major)})

    return World(sandbox.payments(), sandbox.books, WEBHOOK_SECRET, turn, cost)


class TestContract:
    def test_new_checkout_has_link_and_is_pending(self, world: World) -> None:
        link = world.payments.checkout("d1", ngn(150_050), "ada@example.org", "Ada")
        assert link.endswith("/pay/d1")
        found = world.payments.collection("d1")
        assert found is not None
        assert (found.outcome, found.received, found.link) == (PaymentOutcome.WAITING, ngn(0), link)

    def test_reference_opens_one_checkout(self, world: World) -> None:
        world.payments.checkout("d1", ngn(100), "ada@example.org", "Ada")
        with pytest.raises(PaymentRefused):
            world.payments.checkout("d1", ngn(100), "ada@example.org", "Ada")

    @pytest.mark.parametrize("minor", [1, 99, 150_050, 150_051, 999_999_999_999_99])
    def test_collection_reports_received_amount_exactly(self, world: World, minor: int) -> None:
        world.payments.checkout("d1", ngn(150_050), "ada@example.org", "Ada")
        world.books.pay("d1", ngn(minor))
        found = world.payments.collection("d1")
        assert found is not None
        assert (found.outcome, found.received) == (PaymentOutcome.SUCCESSFUL, ngn(minor))
        assert world.payments.balance("NGN") == ngn(minor)

    def test_expired_checkout_fails(self, world: World) -> None:
        world.payments.checkout("d1", ngn(100), "ada@example.org", "Ada")
        world.books.expire("d1")
        found = world.payments.collection("d1")
        assert found is not None
        assert (found.outcome, found.received) == (PaymentOutcome.FAILED, ngn(0))

    def test_unknown_reference_returns_none(self, world: World) -> None:
        assert world.payments.collection("nothing") is None
        assert world.payments.payout("nothing") is None
        assert world.payments.account("nothing") is None
        assert world.payments.account_named("nothing") is None
        assert world.payments.inflow("nothing") is None
        assert world.payments.balance("GHS") == Money.zero("GHS")

    def test_payee_name_comes_from_the_bank(self, world: World) -> None:
        assert world.payments.payee("044", "0123456789", "NGN") == "Holder of 0123456789"
        with pytest.raises(UnknownPayee):
            world.payments.payee("044", UNKNOWN_NUMBER, "NGN")

    def test_issued_account_is_found_by_either_reference(self, world: World) -> None:
        made = world.payments.request_account("v1", "NGN", ADA)
        assert (made.reference, made.state) == ("v1", AccountState.ACTIVE)
        assert made.account_number.isdigit()
        assert (made.bank_name, made.account_name) == ("Sandbox Bank", "Ada Obi")
        assert world.payments.account("v1") == made
        assert world.payments.account_named(made.id) == made
        other = world.payments.request_account("v2", "NGN", ADA)
        assert other.account_number != made.account_number

    def test_declined_account_has_no_number(self, world: World) -> None:
        world.issue("pending")
        made = world.payments.request_account("v1", "NGN", ADA)
        assert (made.state, made.account_number) == (AccountState.PENDING, "")
        world.books.decide(made.id, AccountState.DECLINED, "no licence for 22212345678")
        found = world.payments.account("v1")
        assert found is not None
        assert (found.state, found.account_number) == (AccountState.DECLINED, "")
        assert found.reason.startswith("no licence for ")

    def test_wrong_bvn_is_rejected_without_quoting_it(self, world: World) -> None:
        with pytest.raises(PaymentRefused) as refused:
            world.payments.request_account("v1", "NGN", replace(ADA, bvn=NO_BVN))
        assert NO_BVN not in str(refused.value)
        assert world.payments.account("v1") is None

    @pytest.mark.parametrize(("minor", "fee"), [(1, 0), (20_000, 10_000), (150_051, 5_375)])
    def test_transfer_reports_amount_and_fee_exactly(
        self, world: World, minor: int, fee: int
    ) -> None:
        made = world.payments.request_account("v1", "NGN", ADA)
        world.books.transfer(made.account_number, ngn(minor), ngn(fee), "in-1")
        found = world.payments.inflow("in-1")
        assert found is not None
        assert (found.outcome, found.account_number) == (
            PaymentOutcome.SUCCESSFUL,
            made.account_number,
        )
        assert (found.amount, found.fee) == (ngn(minor), ngn(fee))
        assert world.payments.inflows(made.id) == [found]
        assert world.payments.balance("NGN") == ngn(minor - fee)

    def test_account_lists_its_own_transfers_newest_first(self, world: World) -> None:
        first, second = (world.payments.request_account(id, "NGN", ADA) for id in ("v1", "v2"))
        for number, account in enumerate((first, second, first), 1):
            world.books.transfer(account.account_number, ngn(5), ngn(0), f"in-{number}")
        assert [x.reference for x in world.payments.inflows(first.id)] == ["in-3", "in-1"]
        assert world.payments.inflows("0" * 24) == []

    @pytest.mark.parametrize("outcome", [PaymentOutcome.SUCCESSFUL, PaymentOutcome.FAILED])
    def test_payout_is_pending_then_final(self, world: World, outcome: PaymentOutcome) -> None:
        world.books.fund(ngn(1_000))
        made = world.payments.pay_out("w1", ngn(600), BANK)
        assert (made.outcome, made.amount) == (PaymentOutcome.WAITING, ngn(600))
        assert world.payments.balance("NGN") == ngn(400)
        world.books.finish("w1", outcome, "because")
        found = world.payments.payout("w1")
        assert found is not None
        assert (found.outcome, found.amount, found.reason) == (outcome, ngn(600), "because")
        left = 400 if outcome is PaymentOutcome.SUCCESSFUL else 1_000
        assert world.payments.balance("NGN") == ngn(left)

    @pytest.mark.parametrize("outcome", [PaymentOutcome.SUCCESSFUL, PaymentOutcome.FAILED])
    def test_payout_fee_is_reported_and_charged_separately(
        self, world: World, outcome: PaymentOutcome
    ) -> None:
        world.charge("0.53")
        world.books.fund(ngn(1_000))
        for id, amount in (("w1", 600), ("w2", 348)):
            if id == "w2":
                with pytest.raises(PaymentRefused):
                    world.payments.pay_out(id, ngn(amount), BANK)
                continue
            made = world.payments.pay_out(id, ngn(amount), BANK)
            assert (made.amount, made.fee, made.charged) == (ngn(600), ngn(53), ngn(653))
        world.books.finish("w1", outcome)
        assert world.payments.payout("w1") == replace(made, outcome=outcome)
        left = 347 if outcome is PaymentOutcome.SUCCESSFUL else 1_000
        assert world.payments.balance("NGN") == ngn(left)

    def test_collection_reports_fee_charged_to_the_merchant(self, world: World) -> None:
        for id, fee in (("d1", 150), ("d2", 0)):
            world.payments.checkout(id, ngn(10_000), "ada@example.org", "Ada")
            world.books.pay(id, ngn(10_000), fee)
            found = world.payments.collection(id)
            assert found is not None
            assert (found.received, found.kept) == (ngn(10_000), ngn(fee))
        assert world.payments.balance("NGN") == ngn(19_850)

    def test_repeated_reference_returns_same_payout_without_sending(self, world: World) -> None:
        world.books.fund(ngn(1_000))
        world.payments.pay_out("w1", ngn(600), BANK)
        world.books.finish("w1", PaymentOutcome.SUCCESSFUL)
        again = world.payments.pay_out("w1", ngn(300), BANK)
        assert (again.outcome, again.amount) == (PaymentOutcome.SUCCESSFUL, ngn(600))
        assert world.payments.balance("NGN") == ngn(400)

    def test_payout_from_empty_wallet_is_rejected(self, world: World) -> None:
        with pytest.raises(PaymentRefused):
            world.payments.pay_out("w1", ngn(1), BANK)
        assert world.payments.payout("w1") is None

    @pytest.mark.parametrize(
        ("event", "field", "kind"),
        [
            ("charge.successful", "reference", NoticeKind.COLLECTION),
            ("collection.successful", "merchantReference", NoticeKind.COLLECTION),
            ("payout.failed", "customerReference", NoticeKind.PAYOUT),
            ("account.approved", "id", NoticeKind.ACCOUNT),
            ("virtualaccount.declined", "id", NoticeKind.ACCOUNT),
            ("approved", "_id", NoticeKind.ACCOUNT),
        ],
    )
    def test_notice_signature_covers_raw_bytes(
        self, world: World, event: str, field: str, kind: NoticeKind
    ) -> None:
        # Parsing and dumping the JSON changes the escaped letter and the whole float.
        text = '{"event": "%s", "data": {"%s": "r1", "status": "x", "n": "Ọlá", "a": 100.0}}'
        raw = (text % (event, field)).encode()
        notice = world.payments.read_notice(raw, {"signature": sign(world.secret, raw)})
        assert (notice.kind, notice.event, notice.reference) == (kind, event, "r1")

    def test_transfer_notice_carries_provider_reference(self, world: World) -> None:
        data = {"virtualAccount": "a1", "merchantReference": "v1", "reference": "in-1"}
        raw = json.dumps({"event": "collection.successful", "data": data}).encode()
        notice = world.payments.read_notice(raw, {"signature": sign(world.secret, raw)})
        assert (notice.kind, notice.reference) == (NoticeKind.INFLOW, "in-1")

    def test_notice_of_unrelated_event_has_kind_other(self, world: World) -> None:
        raw = b'{"event": "approved", "data": {}}'
        assert (
            world.payments.read_notice(raw, {"signature": sign(world.secret, raw)}).kind
            is NoticeKind.OTHER
        )

    @pytest.mark.parametrize("signature", ["", "0" * 128, "ẞ" * 64])
    def test_forged_notice_is_rejected(self, world: World, signature: str) -> None:
        with pytest.raises(ForgedNotice):
            world.payments.read_notice(b'{"event": "x", "data": {}}', {"signature": signature})
        raw = b'{"event": "charge.successful", "data": {"reference": "r1"}}'
        good = sign(world.secret, raw)
        for changed in (raw.replace(b"r1", b"r2"), raw + b" "):
            with pytest.raises(ForgedNotice):
                world.payments.read_notice(changed, {"signature": good})

    @pytest.mark.parametrize(
        "raw",
        [
            b"{",
            b"[]",
            b"\xff",
            b"[" * 20_000,
            b'{"event": 1, "data": {}}',
            b'{"event": "payout.failed", "data": {"customerReference": "a b"}}',
            b'{"event": "payout.failed", "data": {}}',
        ],
    )
    def test_signed_invalid_body_raises_value_error(self, world: World, raw: bytes) -> None:
        with pytest.raises(ValueError, match="notice"):
            world.payments.read_notice(raw, {"signature": sign(world.secret, raw)})


class TestFincra:
    def test_lost_answer_is_unknown_and_payout_is_found_later(self, sandbox: Sandbox) -> None:
        payments = sandbox.payments()
        sandbox.books.fund(ngn(1_000))
        sandbox.switches.answers = "lost"
        with pytest.raises(AnswerUnknown):
            payments.pay_out("w1", ngn(600), BANK)
        sandbox.switches.answers = "good"
        found = payments.payout("w1")
        assert found is not None
        assert found.amount == ngn(600)

    def test_rate_limited_request_has_no_effect(self, sandbox: Sandbox) -> None:
        sandbox.books.fund(ngn(1_000))
        sandbox.switches.answers = "limit"
        with pytest.raises(ProviderUnavailable) as caught:
            sandbox.payments().pay_out("w1", ngn(600), BANK)
        assert not isinstance(caught.value, AnswerUnknown)
        assert sandbox.books.payout("w1") is None

    def test_wrong_api_key_does_not_count_as_rejected_payment(self, sandbox: Sandbox) -> None:
        payments = FincraPayments(sandbox.credentials("another key"))
        with pytest.raises(ProviderUnavailable, match="401"):
            payments.pay_out("w1", ngn(600), BANK)

    def test_refused_connection_is_unavailable_with_known_outcome(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
            payments = FincraPayments(FincraCredentials(url, "k", "p", "b", "s"))
            with pytest.raises(ProviderUnavailable) as caught:
                payments.pay_out("w1", ngn(600), BANK)
        assert not isinstance(caught.value, AnswerUnknown)

    def test_timeout_leaves_outcome_unknown(self) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            credentials = FincraCredentials(url, "k", "p", "b", "s")
            client = FincraClient(credentials, timeouts=(1.0, 0.1))
            with pytest.raises(AnswerUnknown):
                FincraPayments(credentials, client).pay_out("w1", ngn(600), BANK)

    def test_circuit_opens_after_consecutive_failures(self, sandbox: Sandbox) -> None:
        time = [0.0]
        breaker = CircuitBreaker(3, 20.0, monotonic=lambda: time[0])
        payments = sandbox.payments(breaker=breaker)
        sandbox.switches.answers = "away"
        for _ in range(3):
            with pytest.raises(AnswerUnknown):
                payments.payee("044", "0123456789", "NGN")
        sandbox.switches.answers = "good"
        with pytest.raises(ProviderUnavailable, match="circuit is open"):
            payments.payee("044", "0123456789", "NGN")
        time[0] = 20.0
        assert payments.payee("044", "0123456789", "NGN")

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b""),
            (200, b"[" * 50_000),
            (200, b'{"success": true}'),
            (200, b'{"success": true, "data": {"status": 1}}'),
            (200, b'{"success": false, "data": {"status": "successful"}}'),
            (302, b"{}"),
            (500, b'{"success": true, "data": {"status": "successful"}}'),
            (503, b'{"success": false, "error": "x", "errorType": "SERVICE_UNAVAILABLE"}'),
            (404, b'{"success": false, "error": "x", "errorType": "RESOURCE_NOT_FOUND"}'),
            (404, b"<html>"),
        ],
    )
    def test_indefinite_answer_leaves_outcome_unknown(self, status: int, body: bytes) -> None:
        def answer(_environ: Any, start: Any) -> list[bytes]:
            start(f"{status} X", [("Content-Type", "application/json")])
            return [body]

        server = Running(answer)
        try:
            payments = FincraPayments(FincraCredentials(server.url, "k", "p", "b", "s"))
            with pytest.raises(AnswerUnknown):
                payments.pay_out("w1", ngn(600), BANK)
        finally:
            server.stop()

    @pytest.mark.parametrize(
        "body",
        [
            {"message": "no", "request_id": "1"},
            {"success": False, "error": "no", "errorType": "VALIDATION_FAILED"},
            {"message": "no", "error": "Bad Request", "statusCode": 400},
        ],
    )
    def test_each_error_format_is_a_rejection(self, body: Any) -> None:
        def answer(_environ: Any, start: Any) -> list[bytes]:
            start("400 Bad Request", [("Content-Type", "application/json")])
            return [json.dumps(body).encode()]

        server = Running(answer)
        try:
            payments = FincraPayments(FincraCredentials(server.url, "k", "p", "b", "s"))
            with pytest.raises(PaymentRefused, match="no"):
                payments.pay_out("w1", ngn(600), BANK)
        finally:
            server.stop()

    @pytest.mark.parametrize(
        ("data", "found"),
        [
            ({"_id": "a1", "status": "approved", "accountInformation": NUMBER}, "active"),
            ({"_id": "a1", "status": "issued", "accountInformation": NUMBER}, "active"),
            ({"_id": "a1", "status": "approved", "accountInformation": None}, "pending"),
            (
                {
                    "_id": "a1",
                    "status": "approved",
                    "isActive": False,
                    "accountInformation": NUMBER,
                },
                "closed",
            ),
            ({"_id": "a1", "status": "Declined"}, "declined"),
            ({"_id": "a1", "status": "anything"}, "pending"),
            ({"_id": "a2", "status": "approved"}, None),
            ({"_id": "a1"}, None),
            ([], None),
        ],
    )
    def test_account_state_follows_status_and_number(self, data: Any, found: str | None) -> None:
        with telling(data) as payments:
            if found is None:
                with pytest.raises(AnswerUnknown):
                    payments.account_named("a1")
                return
            account = payments.account_named("a1")
        assert account is not None
        assert account.state.value == found

    @pytest.mark.parametrize("named", ["v2", None])
    @pytest.mark.parametrize("shape", [lambda x: x, lambda x: {"results": x}])
    def test_unfiltered_list_is_searched(
        self, named: str | None, shape: Callable[[Any], Any]
    ) -> None:
        other = {"_id": "a1", "status": "approved", "merchantReference": named}
        mine = {"_id": "a2", "status": "declined", "merchantReference": "v1"}
        with telling(shape([other])) as payments:
            assert payments.account("v1") is None
        with telling(shape([other, mine])) as payments:
            account = payments.account("v1")
            assert account is not None
            assert (account.id, account.state) == ("a2", AccountState.DECLINED)

    def test_list_of_unexpected_format_leaves_outcome_unknown(self) -> None:
        with telling("many") as payments:
            for ask in (payments.account, payments.inflows):
                with pytest.raises(AnswerUnknown):
                    ask("a1")

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({}, (PaymentOutcome.SUCCESSFUL, 100)),
            (
                {"status": "processing", "destinationAmountSettled": None},
                (PaymentOutcome.WAITING, 0),
            ),
            ({"status": "failed", "destinationAmountSettled": None}, (PaymentOutcome.FAILED, 0)),
            ({"destinationAmountSettled": None}, None),
            ({"destinationAmountSettled": 201}, None),
            ({"destinationAmountSettled": -1}, None),
            ({"destinationAmount": "many"}, None),
            ({"destinationCurrency": "BTC"}, None),
            ({"payeeAccountNumber": None}, None),
            ({"reference": "in-2"}, None),
        ],
    )
    def test_inconsistent_transfer_leaves_outcome_unknown(
        self, changes: dict[str, Any], found: tuple[PaymentOutcome, int] | None
    ) -> None:
        plain = {
            "reference": "in-1",
            "status": "successful",
            "payeeAccountNumber": "9900000000",
            "destinationCurrency": "NGN",
            "destinationAmount": 2,
            "destinationAmountSettled": 1,
        }
        with telling({**plain, **changes}) as payments:
            if found is None:
                with pytest.raises(AnswerUnknown):
                    payments.inflow("in-1")
                return
            inflow = payments.inflow("in-1")
        assert inflow is not None
        assert (inflow.outcome, inflow.fee) == (found[0], ngn(found[1]))

    @pytest.mark.parametrize("fee", ["-1", '"many"', "[]"])
    def test_invalid_fee_leaves_outcome_unknown(self, fee: str) -> None:
        text = '{"success": true, "data": {"customerReference": "w1", "status": "successful", '
        text += f'"currency": "NGN", "amount": 6, "fee": {fee}}}}}'

        def answer(_environ: Any, start: Any) -> list[bytes]:
            start("200 OK", [("Content-Type", "application/json")])
            return [text.encode()]

        server = Running(answer)
        try:
            payments = FincraPayments(FincraCredentials(server.url, "k", "p", "b", "s"))
            with pytest.raises(AnswerUnknown):
                payments.payout("w1")
        finally:
            server.stop()

    @pytest.mark.parametrize("amount", ['"many"', "true", "[]", "1e400", "NaN", "null"])
    def test_invalid_amount_leaves_outcome_unknown(self, amount: str) -> None:
        text = '{"success": true, "data": {"customerReference": "w1", "status": "successful", '
        text += f'"currency": "NGN", "amount": {amount}}}}}'

        def answer(_environ: Any, start: Any) -> list[bytes]:
            start("200 OK", [("Content-Type", "application/json")])
            return [text.encode()]

        server = Running(answer)
        try:
            payments = FincraPayments(FincraCredentials(server.url, "k", "p", "b", "s"))
            with pytest.raises(AnswerUnknown):
                payments.payout("w1")
        finally:
            server.stop()

    def test_secrets_and_account_numbers_are_never_logged(
        self, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
    ) -> None:
        payments = sandbox.payments()
        sandbox.books.fund(ngn(1_000))
        payments.pay_out("w1", ngn(600), BANK)
        made = payments.request_account("v1", "NGN", ADA)
        got = sandbox.books.transfer(made.account_number, ngn(5), ngn(1), "in-1")
        sandbox.switches.answers = "away"
        with pytest.raises(AnswerUnknown):
            payments.request_account("v2", "NGN", ADA)
        with pytest.raises(AnswerUnknown) as caught:
            payments.payee("044", BANK.account_number, "NGN")
        shown = repr((sandbox.credentials(), BANK, ADA, made, got, caught.value))
        seen = capfd.readouterr().err + shown
        secrets = (API_KEY, WEBHOOK_SECRET, BANK.account_number, made.account_number, ADA.bvn)
        for secret in secrets:
            assert secret not in seen

    def test_client_is_thread_safe(self, sandbox: Sandbox) -> None:
        payments = sandbox.payments()
        sandbox.books.fund(ngn(1_000))
        threads = [
            threading.Thread(target=payments.pay_out, args=("w1", ngn(600), BANK)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sandbox.books.balance("NGN") == ngn(400)


class TestBreaker:
    def test_half_open_circuit_sends_one_probe(self) -> None:
        time = [0.0]
        breaker = CircuitBreaker(2, 10.0, monotonic=lambda: time[0])
        breaker.note(False)
        assert breaker.allows()
        breaker.note(False)
        assert not breaker.allows()
        time[0] = 10.0
        assert [breaker.allows() for _ in range(3)] == [True, False, False]
        breaker.note(False)
        assert not breaker.allows()
        time[0] = 20.0
        assert breaker.allows()
        breaker.note(True)
        assert all(breaker.allows() for _ in range(3))


class TestSandbox:
    @pytest.mark.parametrize("change", [{"nothing": 1}, {"copies": "2"}, {"webhooks": "maybe"}])
    def test_unknown_switch_is_rejected(self, sandbox: Sandbox, change: Any) -> None:
        answer = sandbox.app.test_client().post("/sandbox/switches", json=change)
        assert answer.status_code == 422

    def test_checkout_can_be_paid_in_a_browser(self, sandbox: Sandbox) -> None:
        sandbox.payments().checkout("d1", ngn(100), "ada@example.org", "Ada")
        browser = sandbox.app.test_client()
        assert "Pay NGN 1.00" in browser.get("/pay/d1").text
        assert browser.post("/pay/d1").status_code == 200
        assert sandbox.books.balance("NGN") == ngn(100)

    def test_switches_are_parsed_from_arguments(self) -> None:
        found = read_switches(["webhooks=hold", "copies=2", "delay=0.5", "forge=true"])
        assert found == Switches(webhooks="hold", copies=2, delay=0.5, forge=True)
        for wrong in ("nothing=1", "copies=many", "forge=maybe", "payouts", "webhooks=x"):
            with pytest.raises(ValueError):
                read_switches([wrong])


class TestSandboxCommand:
    def test_sandbox_serves_until_stopped(self, tmp_path: Path) -> None:
        port = str(free_port())
        shell = Shell(
            DATABASE_URL=f"sqlite:///{tmp_path}/none.sqlite3",
            FINCRA_SECRET_KEY="key",
            FINCRA_WEBHOOK_SECRET="secret",
        )
        words = ("flask", "amani", "sandbox", "--port", port, "--switch", "answers=limit")
        process = shell.start(*words, log=tmp_path / "log")
        try:
            credentials = FincraCredentials(f"http://127.0.0.1:{port}", "key", "p", "b", "s")
            patient = FincraClient(credentials, breaker=CircuitBreaker(10**6, 0))
            payments = FincraPayments(credentials, patient)

            def limited() -> bool:
                with pytest.raises(ProviderUnavailable) as caught:
                    payments.balance("NGN")
                return "429" in str(caught.value)

            eventually(limited)
        finally:
            process.kill()
            process.wait()

    @pytest.mark.parametrize(
        ("environ", "words", "said"),
        [
            ({}, [], "FINCRA_SECRET_KEY"),
            ({"FINCRA_SECRET_KEY": "k", "FINCRA_WEBHOOK_SECRET": "s"}, ["--switch", "x=1"], "'x'"),
        ],
    )
    def test_wrong_usage_is_reported(
        self, tmp_path: Path, environ: dict[str, str], words: list[str], said: str
    ) -> None:
        shell = Shell(DATABASE_URL=f"sqlite:///{tmp_path}/none.sqlite3", **environ)
        done = shell.run("flask", "amani", "sandbox", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
