"""The contract of deposits, withdrawals, accounts, inbox and outbox."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from amani_app.adapters.database.store import DatabaseStore
from amani_app.domain.ledger import ATTRIBUTED, Account, AccountKind, PendingTransfer, move
from amani_app.domain.money import Money
from amani_app.domain.payments import (
    AccountState,
    Deposit,
    DepositState,
    Destination,
    VirtualAccount,
    Withdrawal,
    WithdrawalState,
)
from amani_app.domain.users import Role, User
from amani_app.ports.payments import NoticeKind, ProviderNotice
from amani_app.ports.store import AlreadyBooked, OutboxEvent, Store, SuspenseItem, UnitOfWork

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
SOON = NOW + timedelta(minutes=1)
BANK = Destination("044", "0123456789", "Ada Obi")
NOTICE = ProviderNotice(NoticeKind.COLLECTION, "charge.successful", "d1", "success")
CHANGED = ProviderNotice(NoticeKind.ACCOUNT, "account.changed", "a1", "")


def prepare(store: Store) -> None:
    """Add two users, the first with 10 naira."""

    def change(unit: UnitOfWork) -> None:
        for name in ("ada", "ben"):
            user = User(name, f"{name}@example.org", name, Role.MEMBER, "hash", NOW)
            unit.users.add(user)
        provider, ada = Account(AccountKind.PROVIDER, "NGN"), wallet("ada")
        unit.ledger.book(move("t0", "deposit", "d0", provider, (ada, Money(1_000, "NGN"))))

    store.run(change)


def wallet(owner: str) -> Account:
    return Account(AccountKind.WALLET, "NGN", owner)


def deposit(id: str = "d1", owner: str = "ada") -> Deposit:
    return Deposit(id, owner, Money(100, "NGN"), NOW)


def withdrawal(id: str = "w1", owner: str = "ada") -> Withdrawal:
    return Withdrawal(id, owner, Money(100, "NGN"), BANK, NOW)


def add(store: Store, *items: Deposit | Withdrawal, due: datetime | None = None) -> None:
    def change(unit: UnitOfWork) -> None:
        for item in items:
            if isinstance(item, Deposit):
                unit.deposits.add(item, due)
                continue
            unit.ledger.reserve(
                PendingTransfer(item.id, "withdraw", item.id, wallet("ada"), item.amount)
            )
            unit.withdrawals.add(item)
            unit.withdrawals.save(item, due)

    store.run(change)


def account(id: str = "v1", owner: str = "ada") -> VirtualAccount:
    return VirtualAccount(id, owner, "NGN", NOW)


def active(id: str = "v1", owner: str = "ada", number: str = "1") -> VirtualAccount:
    return replace(
        account(id, owner),
        state=AccountState.ACTIVE,
        provider_id=f"p-{id}",
        bank_name="A bank",
        account_number=number,
        account_name="Ada Obi",
    )


def keep(store: Store, *accounts: VirtualAccount) -> None:
    def change(unit: UnitOfWork) -> None:
        for each in accounts:
            unit.virtual_accounts.add(each, None)

    store.run(change)


def publish(store: Store, *topics: str) -> None:
    def change(unit: UnitOfWork) -> None:
        for number, topic in enumerate(topics, 1):
            unit.publish(OutboxEvent(f"e{number}", topic, f"s{number}", {"n": number}, NOW))

    store.run(change)


class TestDeposits:
    def test_added_deposit_is_read_back(self, store: Store) -> None:
        add(store, deposit())
        assert store.read(lambda unit: unit.deposits.get("d1")) == deposit()
        with pytest.raises(KeyError):
            store.run(lambda unit: unit.deposits.get("nothing", lock=True))

    def test_all_fields_of_a_change_are_stored(self, store: Store) -> None:
        add(store, deposit())
        got = Money(101, "NGN")
        after = replace(deposit(), state=DepositState.CREDITED, link="https://x", received=got)
        store.run(lambda unit: unit.deposits.save(after, None))
        assert store.run(lambda unit: unit.deposits.get("d1", lock=True)) == after

    def test_list_shows_rows_of_owner_newest_first_in_pages(self, store: Store) -> None:
        add(store, *(deposit(f"d{i}") for i in range(1, 5)), deposit("d9", "ben"))
        first = store.read(lambda unit: unit.deposits.of("ada", None, 2))
        rest = store.read(lambda unit: unit.deposits.of("ada", "d3", 9))
        assert [x.id for x in first + rest] == ["d4", "d3", "d2", "d1"]

    def test_waiting_lists_deposits_with_a_link(self, store: Store) -> None:
        pending = replace(deposit("d2"), state=DepositState.PENDING)
        done = replace(deposit("d3"), state=DepositState.FAILED)
        add(store, deposit(), pending, due=NOW)
        add(store, done)
        assert store.read(lambda unit: unit.deposits.waiting()) == [pending]


class TestWithdrawals:
    def test_added_row_is_read_back_and_updated(self, store: Store) -> None:
        add(store, withdrawal())
        assert store.read(lambda unit: unit.withdrawals.get("w1")) == withdrawal()
        state = WithdrawalState.SENDING
        after = replace(withdrawal(), state=state, doubted_at=NOW, failure="none yet")
        store.run(lambda unit: unit.withdrawals.save(after, SOON))
        assert store.run(lambda unit: unit.withdrawals.get("w1", lock=True)) == after
        assert store.read(lambda unit: unit.withdrawals.waiting()) == [after]
        with pytest.raises(KeyError):
            store.run(lambda unit: unit.withdrawals.get("nothing"))

    def test_list_shows_rows_of_owner_newest_first_in_pages(self, store: Store) -> None:
        add(store, *(withdrawal(f"w{i}") for i in range(1, 5)))
        first = store.read(lambda unit: unit.withdrawals.of("ada", None, 2))
        rest = store.read(lambda unit: unit.withdrawals.of("ada", "w3", 9))
        assert [x.id for x in first + rest] == ["w4", "w3", "w2", "w1"]
        assert store.read(lambda unit: unit.withdrawals.of("ben", None, 9)) == []

    def test_row_without_due_time_is_not_claimed(self, store: Store) -> None:
        add(store, withdrawal())
        assert store.run(lambda unit: unit.withdrawals.claim(SOON, SOON)) is None


class TestVirtualAccounts:
    def test_added_row_is_read_back_and_updated(self, store: Store) -> None:
        keep(store, account())
        assert store.read(lambda unit: unit.virtual_accounts.get("v1")) == account()
        after = active()
        store.run(lambda unit: unit.virtual_accounts.save(after, None))
        assert store.run(lambda unit: unit.virtual_accounts.get("v1", lock=True)) == after
        with pytest.raises(KeyError):
            store.read(lambda unit: unit.virtual_accounts.get("v2"))

    def test_list_shows_rows_of_owner_newest_first_in_pages(self, store: Store) -> None:
        keep(store, *(account(f"v{n}") for n in range(5)), account("v9", "ben"))
        page = store.read(lambda unit: unit.virtual_accounts.of("ada", "v3", 2))
        assert [each.id for each in page] == ["v2", "v1"]

    def test_account_is_found_by_provider_id_and_by_number(self, store: Store) -> None:
        keep(store, active(), active("v2", "ben", number="2"), account("v3"))
        find = store.read
        assert find(lambda unit: unit.virtual_accounts.named("p-v2")) == active("v2", "ben", "2")
        assert find(lambda unit: unit.virtual_accounts.named("p-v3")) is None
        assert find(lambda unit: unit.virtual_accounts.active("1", "NGN")) == active()
        assert find(lambda unit: unit.virtual_accounts.active("1", "USD")) is None
        assert find(lambda unit: unit.virtual_accounts.active("3", "NGN")) is None
        issued = find(lambda unit: unit.virtual_accounts.issued())
        assert sorted(each.id for each in issued) == ["v1", "v2"]

    def test_duplicate_or_closed_number_has_no_active_account(self, store: Store) -> None:
        closed = replace(active("v3", number="3"), state=AccountState.CLOSED)
        keep(store, active(), active("v2", "ben"), closed)
        for number in ("1", "3"):
            find = store.read
            assert find(lambda unit, n=number: unit.virtual_accounts.active(n, "NGN")) is None

    def test_due_account_is_claimed_once_per_lease(self, store: Store) -> None:
        store.run(lambda unit: unit.virtual_accounts.add(account(), NOW))
        claim = store.run
        assert claim(lambda unit: unit.virtual_accounts.claim(NOW, SOON)) == (account(), 1)
        assert claim(lambda unit: unit.virtual_accounts.claim(NOW, SOON)) is None
        assert claim(lambda unit: unit.virtual_accounts.claim(SOON, SOON)) == (account(), 2)


@pytest.mark.parametrize("state", WithdrawalState)
def test_withdrawal_is_stored_in_every_state(store: Store, state: WithdrawalState) -> None:
    after = replace(withdrawal(), state=state, failure="a word")
    add(store, withdrawal())
    store.run(lambda unit: unit.withdrawals.save(after, None))
    assert store.read(lambda unit: unit.withdrawals.get("w1")) == after
    assert store.read(lambda unit: unit.withdrawals.of("ada", None, 9)) == [after]


def test_suspense_lists_transfers_until_attributed(store: Store) -> None:
    suspense, provider = (
        Account(kind, "NGN") for kind in (AccountKind.SUSPENSE, AccountKind.PROVIDER)
    )

    def book(
        id: str, reason: str, reference: str, source: Account, target: Account, n: int
    ) -> None:
        made = move(id, reason, reference, source, (target, Money(n, "NGN")))
        store.run(lambda unit: unit.ledger.book(made))

    book("t1", "unattributed", "r1", provider, suspense, 5)
    book("t2", "paid-late", "r2", suspense, provider, 7)
    book("t3", "unattributed", "r3", provider, suspense, 9)
    first = SuspenseItem("t1", "unattributed", "r1", Money(5, "NGN"), NOW)
    second = SuspenseItem("t2", "paid-late", "r2", Money(-7, "NGN"), NOW)
    last = SuspenseItem("t3", "unattributed", "r3", Money(9, "NGN"), NOW)
    waiting = store.read
    assert waiting(lambda unit: unit.ledger.unattributed()) == [first, second, last]
    book("t4", ATTRIBUTED, "t1", suspense, wallet("ada"), 5)
    assert waiting(lambda unit: unit.ledger.unattributed()) == [second, last]
    with pytest.raises(AlreadyBooked):
        book("t5", ATTRIBUTED, "t1", suspense, wallet("ben"), 5)


def test_booked_references_are_found_by_reason(store: Store) -> None:
    assert store.read(lambda unit: unit.ledger.booked("deposit", ["d0", "d1"])) == {"d0"}
    assert store.read(lambda unit: unit.ledger.booked("inflow", ["d0"])) == set()
    assert store.read(lambda unit: unit.ledger.booked("deposit", [])) == set()


class TestClaims:
    """Deposits stand for all rows with a due time."""

    def test_due_rows_are_claimed_once_per_lease(self, store: Store) -> None:
        add(store, deposit("d1"), due=NOW)
        add(store, deposit("d2"), due=NOW - timedelta(seconds=1))
        add(store, deposit("d3"), due=SOON)

        def claim(now: datetime, until: datetime) -> tuple[str, int] | None:
            found = store.run(lambda unit: unit.deposits.claim(now, until))
            return (found[0].id, found[1]) if found else None

        assert claim(NOW, SOON) == ("d2", 1)
        assert claim(NOW, SOON) == ("d1", 1)
        assert claim(NOW, SOON) is None
        late = SOON + timedelta(seconds=1)
        seen = [claim(SOON, late) for _ in range(4)]
        assert seen == [("d1", 2), ("d2", 2), ("d3", 1), None]


class TestInbox:
    def test_duplicate_notice_is_stored_once(self, store: Store) -> None:
        def receive(raw: bytes) -> bool:
            return store.run(lambda unit: unit.inbox.add(NOTICE, raw, NOW))

        assert [receive(b"{}"), receive(b"{}"), receive(b"{ }")] == [True, False, False]
        found = store.run(lambda unit: unit.inbox.claim(NOW, SOON))
        assert found is not None
        assert found[1:] == (NOTICE, 1)
        assert store.run(lambda unit: unit.inbox.claim(NOW, SOON)) is None

    def test_notices_without_reference_are_distinguished_by_body(self, store: Store) -> None:
        other = ProviderNotice(NoticeKind.OTHER, "approved", "", "")
        add = [store.run(lambda w, r=raw: w.inbox.add(other, r, NOW)) for raw in (b"1", b"2", b"1")]
        assert add == [True, True, False]

    @pytest.mark.parametrize(
        ("notice", "outcome", "again"),
        [(NOTICE, "done", False), (NOTICE, "given-up", True), (CHANGED, "done", True)],
    )
    def test_repeated_notice_is_due_again_unless_its_outcome_is_final(
        self, store: Store, notice: ProviderNotice, outcome: str, again: bool
    ) -> None:
        store.run(lambda unit: unit.inbox.add(notice, b"{}", NOW))
        id = cast(Any, store.run(lambda unit: unit.inbox.claim(NOW, SOON)))[0]
        store.run(lambda unit: unit.inbox.finish(id, outcome))
        later = SOON + timedelta(days=1)
        assert store.run(lambda unit: unit.inbox.claim(later, later)) is None
        assert store.run(lambda unit: unit.inbox.add(notice, b"{}", later)) is False
        found = store.run(lambda unit: unit.inbox.claim(later, later))
        assert (found is not None) is again

    def test_postponed_notice_is_not_due(self, store: Store) -> None:
        store.run(lambda unit: unit.inbox.add(NOTICE, b"{}", NOW))
        id = cast(Any, store.run(lambda unit: unit.inbox.claim(NOW, SOON)))[0]
        store.run(lambda unit: unit.inbox.put_off(id, SOON + timedelta(seconds=1)))
        assert store.run(lambda unit: unit.inbox.claim(SOON, SOON)) is None
        found = store.run(lambda unit: unit.inbox.claim(SOON + timedelta(seconds=1), SOON))
        assert found is not None
        assert found[2] == 2


class TestOutbox:
    def test_events_are_claimed_by_topic_oldest_first(self, store: Store) -> None:
        publish(store, "a", "b", "a")

        def claim(now: datetime) -> str | None:
            found = store.run(lambda unit: unit.outbox.claim(["a"], now, SOON))
            return found.id if found else None

        assert [claim(NOW), claim(NOW), claim(NOW)] == ["e1", "e3", None]
        store.run(lambda unit: unit.outbox.delivered("e1", NOW))
        assert [claim(SOON), claim(SOON)] == ["e3", "e3"]  # The lease ends immediately.

    def test_claimed_event_equals_published_one(self, store: Store) -> None:
        publish(store, "a")
        found = store.run(lambda unit: unit.outbox.claim(["a"], NOW, SOON))
        assert found == OutboxEvent("e1", "a", "s1", {"n": 1}, NOW)

    def test_events_without_listener_count_as_delivered(self, store: Store) -> None:
        publish(store, "a", "b", "c", "b")
        assert store.run(lambda unit: unit.outbox.skip(["a"], NOW, 2)) == 2
        assert store.run(lambda unit: unit.outbox.skip(["a"], NOW, 2)) == 1
        assert store.run(lambda unit: unit.outbox.skip(["a"], NOW, 2)) == 0
        assert store.run(lambda unit: unit.outbox.claim(["b", "c"], NOW, SOON)) is None
        assert store.run(lambda unit: unit.outbox.claim(["a"], NOW, SOON)) is not None

    def test_delivered_events_are_deleted_after_retention(self, store: Store) -> None:
        publish(store, "a", "b")
        store.run(lambda unit: unit.outbox.delivered("e1", NOW))
        assert store.run(lambda unit: unit.outbox.forget(NOW)) == 0
        assert store.run(lambda unit: unit.outbox.forget(SOON)) == 1
        assert store.run(lambda unit: unit.outbox.claim(["b"], NOW, SOON)) is not None


class TestDatabases:
    def test_concurrent_workers_claim_each_row_once(self, engine: Engine) -> None:
        store = DatabaseStore(engine, lambda: NOW)
        prepare(store)
        names = [f"d{i:02}" for i in range(40)]
        add(store, *map(deposit, names), due=NOW)
        seen: list[str] = []

        def work_off() -> None:
            while found := store.run(lambda unit: unit.deposits.claim(NOW, SOON)):
                seen.append(found[0].id)

        threads = [threading.Thread(target=work_off) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == names

    @pytest.mark.parametrize(
        "wrong",
        [
            "UPDATE deposits SET state = 'credited'",
            "UPDATE deposits SET state = 'credited', received = 99",
            "UPDATE deposits SET state = 'lost'",
            "UPDATE deposits SET asked = 0",
            "UPDATE withdrawals SET state = 'lost'",
            "UPDATE withdrawals SET amount = -1",
            "UPDATE withdrawals SET id = 'without a reservation'",
            "UPDATE inbox SET due_at = NULL",
            "UPDATE inbox SET outcome = 'done'",
        ],
    )
    def test_constraints_reject_invalid_rows(self, engine: Engine, wrong: str) -> None:
        store = DatabaseStore(engine, lambda: NOW)
        prepare(store)
        add(store, deposit(), withdrawal())
        store.run(lambda unit: unit.inbox.add(NOTICE, b"{}", NOW))
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(wrong))
