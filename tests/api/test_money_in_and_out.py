"""Deposits and withdrawals over HTTP, between the service and the sandbox."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

import pytest
import requests
from sqlalchemy import Engine, select, text
from werkzeug.test import TestResponse

from amani_app import create_app
from amani_app.adapters.database.engine import db
from amani_app.adapters.fincra.notices import sign
from amani_app.adapters.fincra.sandbox.payments import NO_BVN, UNKNOWN_NUMBER
from amani_app.application.common.acting import Actor, Context
from amani_app.application.provider.payouts import QUIET
from amani_app.application.provider.reconciliation import Reconcile
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.application.requests.withdrawals import REQUESTED, WithdrawalUseCases
from amani_app.application.worker.outbox import DeliverEvents
from amani_app.container import Container, Provider, build_provider
from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import Money
from amani_app.domain.users import Role, User
from amani_app.settings import Settings
from tests.support.people import UNLIMITED
from tests.support.sandboxes import WEBHOOK_SECRET, Running, Sandbox
from tests.support.service_fixtures import SECRET_KEY
from tests.support.waiting import eventually

API = "/api/v1"


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


class Bank:
    """The service and the sandbox as servers, and a clock that tests advance."""

    def __init__(self, engine: Engine) -> None:
        self.sandbox = Sandbox()
        url = engine.url.render_as_string(hide_password=False)
        settings = Settings(
            database_url=url,
            secret_key=SECRET_KEY,
            **UNLIMITED,
        )
        self.app = create_app(settings)
        self.later = timedelta()
        made: Container = self.app.extensions["amani"]
        now = made.context.now
        context = Context(lambda: now() + self.later, made.context.new_id)
        deposits, withdrawals = DepositUseCases(context), WithdrawalUseCases(context)
        numbers = VirtualAccountUseCases(context)
        provider = build_provider(
            "fincra",
            context,
            made.store,
            self.sandbox.payments(),
            deposits,
            numbers,
            withdrawals,
        )
        self.parts = replace(
            made,
            context=context,
            provider=provider,
            deposits=deposits,
            virtual_accounts=numbers,
            withdrawals=withdrawals,
        )
        self.provider: Provider = provider
        self.app.extensions["amani"] = self.parts
        self.service = Running(self.app)
        self.hook = f"{self.service.url}{API}/webhooks/fincra"
        self.sandbox.webhooks.url = self.hook
        self.sandbox.switches.webhooks = "hold"
        self.deliver = DeliverEvents(context, made.store, {REQUESTED: provider.payouts.send})
        self.keys = itertools.count(1)

    def stop(self) -> None:
        self.service.stop()
        self.sandbox.stop()
        self.parts.engine.dispose()

    def person(self, name: str) -> Person:
        now = self.parts.context.now()
        user = User(f"u-{name}", f"{name}@example.org", name, Role.MEMBER, "hash", now)
        self.parts.store.run(lambda unit: unit.users.add(user))
        return Person(self, user)

    def rounds(self, count: int = 1, **later: float) -> None:
        """Run `count` rounds of the workers after the time `later`."""
        self.later += timedelta(**later)
        for _ in range(count):
            self.deliver()
            self.provider.notices()
            self.provider.payouts()
            self.provider.checkouts()
            self.provider.inflows()

    def empty(self) -> None:
        """Remove all money from the provider."""
        self.sandbox.books.fund(-self.sandbox.books.balance("NGN"))

    def total(self, kind: AccountKind, currency: str = "NGN") -> int:
        account = Account(kind, currency)
        return self.parts.store.read(lambda unit: unit.ledger.total(account)).minor

    def outcomes(self) -> list[str | None]:
        with self.parts.engine.connect() as connection:
            rows = connection.execute(text("SELECT outcome FROM inbox ORDER BY received_at"))
            return [row.outcome for row in rows]

    def notify(self, body: Any, secret: str = WEBHOOK_SECRET) -> int:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"signature": sign(secret, raw), "content-type": "application/json"}
        return requests.post(self.hook, data=raw, headers=headers, timeout=10).status_code

    def consistent(self) -> bool:
        return self.parts.store.read(lambda unit: unit.ledger.differences()) == []


class Person:
    """A signed-in user."""

    def __init__(self, bank: Bank, user: User) -> None:
        self.bank, self.id = bank, user.id
        self._token = bank.parts.people.session(user)[0]
        self._client = bank.app.test_client()

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._client.get(f"{API}{path}", headers=headers).json

    def post(self, path: str, key: str = "", **body: Any) -> TestResponse:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Idempotency-Key": key or f"key-number-{next(self.bank.keys)}",
        }
        return self._client.post(f"{API}{path}", headers=headers, json=body)

    def deposit(self, minor: int = 10_000) -> str:
        made = self.post("/deposits", amount=minor, currency="NGN")
        assert made.status_code == 201, made.text
        id: str = made.json["id"]
        return id

    def withdraw(self, minor: int, number: str = "0123456789", **rest: Any) -> TestResponse:
        body = {"amount": minor, "currency": "NGN", "bank_code": "044", "account_number": number}
        return self.post("/withdrawals", **rest, **body)

    def funded(self, minor: int) -> Person:
        """Deposit `minor` through the sandbox."""
        id = self.deposit(minor)
        self.bank.sandbox.tell("pay", reference=id)
        self.bank.sandbox.tell("deliver")
        self.bank.rounds()
        assert self.wallet() == (minor, 0)
        return self

    def wallet(self) -> tuple[int, int]:
        items = self.get("/wallets")["items"]
        if not items:
            return 0, 0
        return items[0]["posted"]["minor"], items[0]["reserved"]["minor"]

    def state(self, path: str) -> str:
        found: str = self.get(path)["state"]
        return found


@pytest.fixture(
    params=["sqlite_engine", pytest.param("postgres_engine", marks=pytest.mark.postgres)]
)
def bank(request: pytest.FixtureRequest) -> Iterator[Bank]:
    bank = Bank(request.getfixturevalue(request.param))
    yield bank
    bank.stop()


@pytest.fixture
def ada(bank: Bank) -> Person:
    return bank.person("ada")


class TestDeposits:
    def test_paid_deposit_is_credited(self, bank: Bank, ada: Person) -> None:
        made = ada.post("/deposits", amount="100.00", currency="NGN").json
        assert (made["state"], made["received"]) == ("pending", None)
        assert requests.post(made["checkout_url"], timeout=10).status_code == 200
        assert ada.wallet() == (0, 0)
        assert bank.sandbox.tell("deliver") == [200]
        assert ada.wallet() == (0, 0)  # A notice moves no money before the provider confirms it.
        bank.rounds()
        assert ada.wallet() == (10_000, 0)
        found = ada.get(f"/deposits/{made['id']}")
        assert (found["state"], found["received"]["amount"]) == ("credited", "100.00")
        assert bank.total(AccountKind.PROVIDER) == -10_000
        assert bank.consistent()

    def test_repeated_request_returns_same_link(self, bank: Bank, ada: Person) -> None:
        body = {"amount": 100, "currency": "NGN"}
        first = ada.post("/deposits", "the-same-key", **body)
        again = ada.post("/deposits", "the-same-key", **body)
        assert first.json == again.json
        assert first.json["checkout_url"]
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(ada.get("/deposits")["items"]) == 1

    @pytest.mark.parametrize("answers", ["away", "lost"])
    def test_deposit_waits_for_link_while_provider_is_unreachable(
        self, bank: Bank, ada: Person, answers: str
    ) -> None:
        bank.sandbox.switches.answers = answers  # type: ignore[assignment]
        made = ada.post("/deposits", amount=100, currency="NGN")
        assert (made.status_code, made.json["state"]) == (201, "opening")
        bank.rounds(minutes=3)
        bank.sandbox.switches.answers = "good"
        bank.rounds(minutes=3)
        found = ada.get(f"/deposits/{made.json['id']}")
        assert (found["state"], found["checkout_url"] is None) == ("pending", False)

    def test_lost_notice_is_recovered_by_polling(self, bank: Bank, ada: Person) -> None:
        bank.sandbox.switches.webhooks = "lose"
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id)
        bank.rounds()
        assert ada.wallet() == (0, 0)
        bank.rounds(minutes=3)
        assert ada.wallet() == (10_000, 0)

    def test_expired_deposit_fails_and_late_payment_is_credited(
        self, bank: Bank, ada: Person
    ) -> None:
        id = ada.deposit()
        bank.sandbox.tell("expire", reference=id)
        bank.rounds(minutes=3)
        assert ada.state(f"/deposits/{id}") == "failed"
        bank.sandbox.tell("pay", reference=id)
        bank.sandbox.tell("deliver")
        bank.rounds()
        assert ada.state(f"/deposits/{id}") == "credited"
        assert ada.wallet() == (10_000, 0)

    def test_overpayment_goes_to_suspense(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id, amount="100.01", currency="NGN")
        bank.sandbox.tell("deliver")
        bank.rounds()
        assert ada.wallet() == (10_000, 0)
        assert bank.total(AccountKind.SUSPENSE) == 1
        assert ada.get(f"/deposits/{id}")["received"]["minor"] == 10_001

    @pytest.mark.parametrize(("amount", "currency"), [("99.99", "NGN"), ("100.00", "USD")])
    def test_underpayment_and_other_currency_go_to_suspense(
        self, bank: Bank, ada: Person, amount: str, currency: str
    ) -> None:
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id, amount=amount, currency=currency)
        bank.sandbox.tell("deliver")
        bank.rounds(2)
        assert ada.state(f"/deposits/{id}") == "suspended"
        assert ada.wallet() == (0, 0)
        assert bank.total(AccountKind.SUSPENSE, currency) == Money.parse(amount, currency).minor
        assert bank.consistent()

    @pytest.mark.parametrize("amount", ["0", "0.00", "-1", 0, "1.001"])
    def test_deposit_of_zero_is_rejected(self, bank: Bank, ada: Person, amount: Any) -> None:
        assert ada.post("/deposits", amount=amount, currency="NGN").status_code == 422
        assert ada.get("/deposits")["items"] == []

    def test_lists_are_paginated(self, ada: Person) -> None:
        made = [ada.deposit(i) for i in range(1, 4)]
        page = ada.get("/deposits?limit=2")
        rest = ada.get(f"/deposits?limit=2&cursor={page['next_cursor']}")
        seen = [x["id"] for x in page["items"] + rest["items"]]
        assert seen == sorted(made, reverse=True)
        assert rest["next_cursor"] is None


class TestNotices:
    def test_duplicate_notices_credit_once(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id)
        bank.sandbox.tell("switches", copies=5)
        assert bank.sandbox.tell("deliver") == [200] * 5
        bank.rounds(3)
        assert ada.wallet() == (10_000, 0)
        assert bank.outcomes() == ["done"]

    def test_concurrent_duplicate_notices_credit_once(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id)
        body = {"event": "charge.successful", "data": {"reference": id, "status": "success"}}
        threads = [threading.Thread(target=bank.notify, args=(body,)) for _ in range(4)]
        threads += [threading.Thread(target=bank.rounds, args=(3,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bank.rounds(minutes=2)
        assert ada.wallet() == (10_000, 0)
        assert bank.consistent()

    def test_replayed_notices_credit_nothing(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        id = ada.get("/deposits")["items"][0]["id"]
        for event in ("charge.successful", "collection.successful"):
            for data in ({"reference": id, "status": "success"}, {"merchantReference": id}):
                assert bank.notify({"event": event, "data": {**data, "amount": 10**6}}) == 200
        bank.rounds(3)
        assert ada.wallet() == (10_000, 0)
        assert bank.total(AccountKind.SUSPENSE) == 0

    def test_forged_notices_are_rejected_and_not_stored(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        bank.sandbox.tell("pay", reference=id)
        bank.sandbox.tell("switches", forge=True)
        assert bank.sandbox.tell("deliver") == [401]
        assert bank.notify({"event": "x", "data": {}}, secret="") == 401
        assert requests.post(bank.hook, data=b"{}", timeout=10).status_code == 401
        assert bank.outcomes() == []

    def test_signed_notice_of_unpaid_deposit_credits_nothing(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        body = {"event": "charge.successful", "data": {"reference": id, "status": "success"}}
        assert bank.notify(body) == 200
        for _ in range(12):
            bank.rounds(minutes=10)
        assert ada.wallet() == (0, 0)
        assert bank.outcomes() == ["given-up"]
        # A repeated notice makes the worker query a reference that it had given up.
        bank.sandbox.books.pay(id, ngn(10_000))
        assert bank.notify(body) == 200
        bank.rounds()
        assert ada.wallet() == (10_000, 0)

    def test_early_notice_is_processed_later(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        body = {"event": "charge.successful", "data": {"reference": id, "status": "success"}}
        bank.notify(body)
        bank.rounds()
        assert (ada.wallet(), bank.outcomes()) == ((0, 0), [None])
        bank.sandbox.books.pay(id, ngn(10_000))
        bank.rounds(seconds=5)
        assert (ada.wallet(), bank.outcomes()) == ((10_000, 0), ["done"])

    def test_order_of_notices_does_not_change_the_result(self, bank: Bank, ada: Person) -> None:
        ids = [ada.deposit(minor) for minor in (100, 200, 300)]
        for id in ids:
            bank.sandbox.tell("pay", reference=id)
        assert bank.sandbox.tell("deliver", backwards=True) == [200] * 3
        bank.rounds()
        assert ada.wallet() == (600, 0)
        lines = ada.get("/wallets/wallet:u-ada:NGN/entries")["items"]
        assert sorted(line["amount"]["minor"] for line in lines) == [100, 200, 300]

    def test_delayed_notice_is_delivered(self, bank: Bank, ada: Person) -> None:
        id = ada.deposit()
        bank.sandbox.tell("switches", webhooks="send", delay=0.05, copies=2)
        bank.sandbox.tell("pay", reference=id)
        eventually(lambda: bank.sandbox.webhooks.sent == [200, 200])
        bank.rounds()
        assert ada.wallet() == (10_000, 0)

    def test_reference_unknown_to_provider_moves_nothing(self, bank: Bank) -> None:
        for kind in ("charge.successful", "payout.successful"):
            bank.notify({"event": kind, "data": {"reference": "r-1", "status": "x"}})
        for _ in range(12):
            bank.rounds(minutes=10)
        assert bank.outcomes() == ["given-up"] * 2
        assert bank.total(AccountKind.PROVIDER) == 0

    def test_payment_with_unknown_reference_goes_to_suspense_once(self, bank: Bank) -> None:
        for event in ("charge.successful", "collection.successful"):
            bank.sandbox.books.pay("r-1", ngn(700))
            bank.notify({"event": event, "data": {"reference": "r-1"}})
            bank.rounds(2)
        assert bank.total(AccountKind.SUSPENSE) == 700
        assert bank.outcomes() == ["done"] * 2
        assert bank.consistent()

    def test_unrelated_notice_is_ignored(self, bank: Bank) -> None:
        bank.notify({"event": "conversion.successful", "data": {"id": 1}})
        bank.rounds()
        assert bank.outcomes() == ["ignored"]

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"event": "payout.failed", "data": {}}'])
    def test_signed_invalid_notice_returns_problem(self, bank: Bank, raw: bytes) -> None:
        assert bank.notify(raw) == 422

    def test_unstorable_text_is_stored_escaped(self, bank: Bank) -> None:
        raw = '{"event": "x.y", "data": {"name": "\x7f Ọlá", "z": "\\u0000"}}'.encode()
        assert bank.notify(raw) == 200
        assert bank.notify(b'{"event": "a\\u0000b", "data": {}}') == 422


BVN = "22212345678"


class TestVirtualAccounts:
    def ask(self, person: Person, bvn: str = BVN, **rest: Any) -> TestResponse:
        body = {"currency": "NGN", "first_name": "Ada", "last_name": "Obi", "bvn": bvn}
        return person.post("/virtual-accounts", **rest, **body)

    def test_transfer_to_virtual_account_credits_its_owner_once(
        self, bank: Bank, ada: Person, capfd: pytest.CaptureFixture[str]
    ) -> None:
        made = self.ask(ada)
        assert (made.status_code, made.json["state"]) == (201, "active"), made.text
        assert made.json["account_name"] == "Ada Obi"
        assert ada.get("/virtual-accounts")["items"] == [made.json]
        bank.sandbox.switches.copies = 3
        number = made.json["account_number"]
        for amount in ("100.00", "0.01"):
            bank.sandbox.tell("transfer", account_number=number, amount=amount, fee="0.01")
        assert bank.sandbox.tell("deliver", backwards=True) == [200] * 6
        assert ada.wallet() == (0, 0)  # A notice moves no money before the provider confirms it.
        bank.rounds(2)
        assert ada.wallet() == (10_001, 0)
        assert bank.total(AccountKind.PROVIDER) == -9_999
        assert bank.total(AccountKind.FEES) == -2
        assert bank.sandbox.books.balance("NGN") == ngn(9_999)
        assert Reconcile(bank.parts.store, bank.provider.payments)() == []
        assert not self.told(bank, BVN)
        assert self.told(bank, number) == {"virtual_accounts", "idempotency_keys"}
        seen = capfd.readouterr().err
        assert BVN not in seen and number not in seen

    def told(self, bank: Bank, number: str) -> set[str]:
        """The tables that contain `number`."""
        with bank.parts.engine.connect() as connection:
            return {
                table.name
                for table in db.metadata.sorted_tables
                for row in connection.execute(select(table))
                if number in " ".join(map(str, row))
            }

    @pytest.mark.parametrize("event", ["account.approved", "virtualaccount.approved", "approved"])
    def test_account_is_active_after_manual_approval(
        self, bank: Bank, ada: Person, event: str
    ) -> None:
        bank.sandbox.switches.accounts = "pending"
        made = self.ask(ada).json
        assert (made["state"], made["account_number"]) == ("pending", None)
        status = {"reference": made["id"], "status": "active", "event": event}
        bank.sandbox.tell("account", **status)
        bank.sandbox.tell("deliver")
        bank.rounds()
        found = ada.get(f"/virtual-accounts/{made['id']}")
        assert found["state"] == "active"
        bank.sandbox.tell("transfer", account_number=found["account_number"], amount="5.00")
        bank.sandbox.tell("deliver")
        bank.rounds()
        assert ada.wallet() == (500, 0)

    @pytest.mark.parametrize("event", ["account.declined", "virtualaccount.declined", "declined"])
    def test_declined_account_has_reason_and_can_be_requested_again(
        self, bank: Bank, ada: Person, event: str
    ) -> None:
        bank.sandbox.switches.accounts = "pending"
        made = self.ask(ada).json
        told = {"status": "declined", "reason": f"the name is not of {BVN}", "event": event}
        bank.sandbox.tell("account", reference=made["id"], **told)
        bank.sandbox.tell("deliver")
        bank.rounds()
        found = ada.get(f"/virtual-accounts/{made['id']}")
        assert (found["state"], found["failure"]) == ("declined", "the name is not of ...")
        assert self.ask(ada).status_code == 201

    def test_user_has_one_account_and_repeat_returns_it(self, bank: Bank, ada: Person) -> None:
        first, again = (self.ask(ada, key="the-same-key") for _ in range(2))
        assert first.json == again.json
        assert again.headers["Idempotent-Replayed"] == "true"
        other = self.ask(ada, "22212345679", key="the-same-key")
        assert (other.status_code, other.json["code"]) == (422, "idempotency-key-reused")
        found = self.ask(ada)
        assert (found.status_code, found.json["code"]) == (409, "virtual-account-exists")
        assert len(ada.get("/virtual-accounts")["items"]) == 1

    def test_wrong_bvn_is_rejected_without_quoting_it(self, bank: Bank, ada: Person) -> None:
        found = self.ask(ada, NO_BVN)
        assert (found.status_code, found.json["state"]) == (201, "declined")
        assert "BVN" in found.json["failure"]
        assert NO_BVN not in found.text
        for bvn in ("1234", "2221234567x", ""):
            refused = self.ask(ada, bvn)
            assert (refused.status_code, refused.json["code"]) == (422, "invalid-request")
            assert not bvn or bvn not in refused.text

    @pytest.mark.parametrize(("answers", "state"), [("limit", "failed"), ("lost", "requested")])
    def test_bvn_is_not_stored_while_provider_is_unreachable(
        self, bank: Bank, ada: Person, answers: str, state: str
    ) -> None:
        bank.sandbox.switches.answers = answers  # type: ignore[assignment]
        made = self.ask(ada)
        assert (made.status_code, made.json["state"]) == (201, state)
        bank.sandbox.switches.answers = "good"
        bank.rounds(minutes=3)
        found = ada.get(f"/virtual-accounts/{made.json['id']}")
        assert found["state"] == ("active" if answers == "lost" else "failed")
        assert not self.told(bank, BVN)

    def test_transfer_to_unassigned_number_goes_to_suspense_once(
        self, bank: Bank, ada: Person
    ) -> None:
        made = self.ask(ada).json
        bank.sandbox.tell("account", reference=made["id"], status="closed")
        bank.sandbox.tell("deliver")
        bank.rounds()
        for number in (made["account_number"], "1234567890"):
            bank.sandbox.tell("transfer", account_number=number, amount="7.00")
        bank.sandbox.switches.copies = 2
        bank.sandbox.tell("deliver")
        bank.rounds(3)
        assert ada.wallet() == (0, 0)
        assert bank.total(AccountKind.SUSPENSE) == 1_400
        assert ada.get(f"/virtual-accounts/{made['id']}")["state"] == "closed"
        assert bank.outcomes() == ["done"] * 3
        assert bank.consistent()

    def test_forged_and_unknown_transfers_credit_nothing(self, bank: Bank, ada: Person) -> None:
        number = self.ask(ada).json["account_number"]
        data = {"virtualAccount": "a", "reference": "in-1", "accountNumber": number,
                "amountReceived": 100, "status": "successful"}  # fmt: skip
        body = {"event": "collection.successful", "data": data}
        assert bank.notify(body, secret="another secret") == 401
        assert bank.notify(body) == 200
        for _ in range(12):
            bank.rounds(minutes=10)
        assert (ada.wallet(), bank.outcomes()) == ((0, 0), ["given-up"])


class TestWithdrawals:
    def test_withdrawal_is_reserved_sent_and_paid(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        made = ada.withdraw(6_000)
        assert made.status_code == 201, made.text
        assert (made.json["state"], made.json["account_number"]) == ("requested", "******6789")
        assert made.json["account_name"] == "Holder of 0123456789"
        path = f"/withdrawals/{made.json['id']}"
        assert ada.wallet() == (10_000, 6_000)
        bank.rounds()
        assert (ada.state(path), ada.wallet()) == ("processing", (10_000, 6_000))
        bank.sandbox.tell("finish", reference=made.json["id"], status="successful")
        bank.sandbox.tell("deliver")
        bank.rounds()
        assert (ada.state(path), ada.wallet()) == ("paid", (4_000, 0))
        assert bank.total(AccountKind.PROVIDER) == -4_000
        assert bank.sandbox.books.balance("NGN") == ngn(4_000)
        assert bank.consistent()

    def test_payout_fee_is_booked(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        bank.sandbox.tell("switches", payout_fee=53.75)
        id = ada.withdraw(4_000).json["id"]
        bank.rounds()
        bank.sandbox.tell("finish", reference=id, status="successful")
        reconcile = Reconcile(bank.parts.store, bank.provider.payments)
        assert reconcile() == []
        bank.sandbox.tell("deliver")
        bank.rounds()
        assert ada.wallet() == (6_000, 0)
        assert bank.sandbox.books.balance("NGN") == ngn(625)
        assert bank.total(AccountKind.PROVIDER) == -625
        assert bank.total(AccountKind.FEES) == -5_375
        assert reconcile() == []
        assert bank.consistent()

    def test_failed_withdrawal_returns_the_money(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        id = ada.withdraw(6_000).json["id"]
        bank.rounds()
        bank.sandbox.tell("finish", reference=id, status="failed", reason="account closed")
        bank.sandbox.tell("switches", copies=3)
        bank.sandbox.tell("deliver")
        bank.rounds(2)
        found = ada.get(f"/withdrawals/{id}")
        assert (found["state"], found["failure"]) == ("failed", "account closed")
        assert ada.wallet() == (10_000, 0)
        assert bank.consistent()

    def test_provider_is_polled_without_notice(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        id = ada.withdraw(6_000).json["id"]
        bank.rounds()
        bank.sandbox.switches.webhooks = "lose"
        bank.sandbox.tell("finish", reference=id, status="successful")
        bank.rounds(minutes=3)
        assert ada.state(f"/withdrawals/{id}") == "paid"

    def test_rejected_withdrawal_returns_the_money(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        bank.sandbox.books.balances["NGN"] = 0
        id = ada.withdraw(6_000).json["id"]
        bank.rounds()
        assert ada.state(f"/withdrawals/{id}") == "failed"
        assert ada.wallet() == (10_000, 0)

    def test_lost_answer_is_queried_and_never_paid_twice(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        id = ada.withdraw(4_000).json["id"]
        bank.sandbox.switches.answers = "lost"
        bank.rounds()
        assert (ada.state(f"/withdrawals/{id}"), ada.wallet()) == ("sending", (10_000, 4_000))
        assert bank.sandbox.books.balance("NGN") == ngn(6_000)
        bank.sandbox.switches.answers = "good"
        bank.rounds(3, minutes=1)
        assert ada.state(f"/withdrawals/{id}") == "processing"
        assert bank.sandbox.books.balance("NGN") == ngn(6_000)

    @pytest.mark.parametrize("answers", ["away", "limit"])
    def test_undelivered_payout_is_sent_after_recovery(
        self, bank: Bank, ada: Person, answers: str
    ) -> None:
        ada.funded(10_000)
        id = ada.withdraw(4_000).json["id"]
        bank.sandbox.switches.answers = answers  # type: ignore[assignment]
        bank.rounds()
        bank.rounds(minutes=1)
        assert ada.state(f"/withdrawals/{id}") == "sending"
        bank.sandbox.switches.answers = "good"
        bank.rounds(minutes=1)
        assert ada.state(f"/withdrawals/{id}") == "processing"
        assert bank.sandbox.books.balance("NGN") == ngn(6_000)

    def test_rejected_retry_is_verified_before_it_counts(self, bank: Bank, ada: Person) -> None:
        """The first request may still be in progress: a refund could pay the amount twice."""
        ada.funded(10_000)
        id = ada.withdraw(4_000).json["id"]
        bank.sandbox.switches.answers = "away"
        bank.rounds()
        bank.sandbox.switches.answers = "good"
        bank.sandbox.books.balances["NGN"] = 0
        bank.rounds(minutes=1)
        assert (ada.state(f"/withdrawals/{id}"), ada.wallet()) == ("sending", (10_000, 4_000))
        bank.rounds(seconds=QUIET.total_seconds())
        assert (ada.state(f"/withdrawals/{id}"), ada.wallet()) == ("failed", (10_000, 0))

    def test_payout_resumes_after_worker_death_before_the_call(
        self, bank: Bank, ada: Person
    ) -> None:
        ada.funded(10_000)
        id = ada.withdraw(4_000).json["id"]
        until = bank.parts.context.now() + timedelta(seconds=60)
        take = bank.parts.withdrawals.take
        bank.parts.store.run(lambda unit: take(unit, Actor("dying"), id, until))
        bank.rounds()
        assert ada.state(f"/withdrawals/{id}") == "sending"
        bank.rounds(minutes=2)
        assert ada.state(f"/withdrawals/{id}") == "processing"
        assert bank.sandbox.books.balance("NGN") == ngn(6_000)

    def test_payout_resumes_after_worker_death_after_the_call(
        self, bank: Bank, ada: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada.funded(10_000)
        id = ada.withdraw(4_000).json["id"]

        def die(*_: Any) -> NoReturn:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(bank.provider.payouts, "_note", die)
            with pytest.raises(KeyboardInterrupt):
                bank.rounds()
        assert ada.state(f"/withdrawals/{id}") == "sending"
        bank.rounds(minutes=2)
        assert ada.state(f"/withdrawals/{id}") == "processing"
        assert bank.sandbox.books.balance("NGN") == ngn(6_000)

    def test_concurrent_workers_pay_each_withdrawal_once(self, bank: Bank, ada: Person) -> None:
        ada.funded(10_000)
        ids = [ada.withdraw(1_000).json["id"] for _ in range(6)]
        bank.sandbox.switches.payouts = "successful"
        threads = [threading.Thread(target=bank.rounds, args=(2,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bank.rounds(minutes=3)
        assert {ada.state(f"/withdrawals/{id}") for id in ids} == {"paid"}
        assert ada.wallet() == (4_000, 0)
        assert bank.sandbox.books.balance("NGN") == ngn(4_000)
        assert bank.consistent()

    def test_withdrawal_over_balance_is_rejected(self, bank: Bank, ada: Person) -> None:
        ada.funded(100)
        found = ada.withdraw(101)
        assert (found.status_code, found.json["code"]) == (409, "insufficient-funds")
        assert ada.withdraw(0).status_code == 422
        assert ada.get("/withdrawals")["items"] == []

    def test_account_unknown_to_its_bank_is_rejected(self, bank: Bank, ada: Person) -> None:
        ada.funded(100)
        found = ada.withdraw(100, UNKNOWN_NUMBER)
        assert (found.status_code, found.json["code"]) == (422, "unknown-payee")
        assert UNKNOWN_NUMBER not in found.text
        assert ada.wallet() == (100, 0)

    def test_unreachable_provider_reserves_nothing_and_allows_retry(
        self, bank: Bank, ada: Person
    ) -> None:
        ada.funded(100)
        first = ada.withdraw(60, key="the-same-key")
        bank.sandbox.switches.answers = "away"
        found = ada.withdraw(40)
        assert (found.status_code, found.json["code"]) == (503, "payments-unavailable")
        assert int(found.headers["Retry-After"]) > 0
        assert ada.wallet() == (100, 60)
        again = ada.withdraw(60, key="the-same-key")
        assert again.json == first.json

    @pytest.mark.parametrize(
        ("words", "state"),
        [(("successful", "failed"), "returned"), (("failed", "successful"), "paid-late")],
    )
    def test_reversed_payout_status_is_corrected_once(
        self, bank: Bank, ada: Person, words: tuple[str, str], state: str
    ) -> None:
        ada.funded(10_000)
        id = ada.withdraw(6_000).json["id"]
        bank.rounds()
        for word in (*words, words[1]):
            bank.sandbox.tell("finish", reference=id, status=word)
            bank.sandbox.tell("deliver")
            bank.rounds(2)
        assert ada.state(f"/withdrawals/{id}") == state
        assert ada.wallet() == (10_000, 0)
        assert Reconcile(bank.parts.store, bank.provider.payments)() == []


def test_payments_without_provider_return_503(sqlite_engine: Engine) -> None:
    url = sqlite_engine.url.render_as_string(hide_password=False)
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY))
    parts: Container = app.extensions["amani"]
    user = User("u", "u@example.org", "U", Role.MEMBER, "hash", parts.context.now())
    parts.store.run(lambda unit: unit.users.add(user))
    headers = {
        "Authorization": f"Bearer {parts.people.session(user)[0]}",
        "Idempotency-Key": "some-key-or-other",
    }
    account = {"bank_code": "044", "account_number": "0123456789"}
    holder = {"first_name": "Ada", "last_name": "Obi", "bvn": BVN}
    amount = {"amount": 1}
    for path, more in (
        ("deposits", amount),
        ("withdrawals", amount | account),
        ("virtual-accounts", holder),
        ("webhooks/fincra", {}),
    ):
        body = {"currency": "NGN", **more}
        found = app.test_client().post(f"{API}/{path}", headers=headers, json=body)
        assert (found.status_code, found.json["code"]) == (503, "payments-unavailable")
    parts.engine.dispose()
