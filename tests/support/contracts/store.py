"""The contract of the store, in memory and on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from amani_app.adapters.database.store import DatabaseStore
from amani_app.domain.errors import AlreadySettled, InsufficientFunds
from amani_app.domain.escrow import Escrow, FeePolicy, Milestone, MilestoneState, Party
from amani_app.domain.ledger import Account, AccountKind, Balance, Entry, PendingTransfer, move
from amani_app.domain.money import Money
from amani_app.domain.users import Role, User
from amani_app.ports.store import (
    AlreadyBooked,
    AuditLine,
    EmailTaken,
    KeyReused,
    OutboxEvent,
    StaleVersion,
    Store,
    StoredResponse,
    UnitOfWork,
)
from tests.support.counting import counted

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
ADA = Account(AccountKind.WALLET, "NGN", "ada")
BEN = Account(AccountKind.WALLET, "NGN", "ben")
FEES = Account(AccountKind.FEES, "NGN")
PROVIDER = Account(AccountKind.PROVIDER, "NGN")


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


PLAIN = pytest.param("plain", marks=pytest.mark.postgres)
"""PostgreSQL by SQLAlchemy alone: DATABASE_PIPELINE=false."""


def deposit(store: Store, account: Account, minor: int, name: str = "d1") -> None:
    booked = move(f"t-{name}", "deposit", name, PROVIDER, (account, ngn(minor)))
    store.run(lambda unit: unit.ledger.book(booked))


def balance(store: Store, account: Account) -> tuple[int, int]:
    found: Balance = store.run(lambda unit: unit.ledger.balance(account))
    return found.posted.minor, found.reserved.minor


def total(store: Store, account: Account) -> int:
    return store.run(lambda unit: unit.ledger.total(account)).minor


def differences(store: Store) -> list[str]:
    return store.run(lambda unit: unit.ledger.differences())


def person(name: str) -> User:
    return User(name, f"{name}@example.org", name.title(), Role.MEMBER, "hash", NOW)


def agreement(id: str = "e1", *amounts: int) -> Escrow:
    parts = enumerate(amounts or (600, 400), 1)
    return Escrow(
        id=id,
        title="A shop",
        client="ada",
        freelancer="ben",
        currency="NGN",
        fee=FeePolicy(500),
        silence=timedelta(days=7),
        milestones=tuple(Milestone(f"{id}-m{i}", f"Part {i}", ngn(a)) for i, a in parts),
    )


def add(store: Store, *escrows: Escrow) -> None:
    def change(unit: UnitOfWork) -> None:
        if unit.users.by_email("ada@example.org") is None:
            unit.users.add(person("ada"))
            unit.users.add(person("ben"))
        for escrow in escrows:
            unit.escrows.add(escrow, NOW)

    store.run(change)


class TestUnitOfWork:
    def test_error_rolls_back_the_unit(self, store: Store) -> None:
        def change(unit: UnitOfWork) -> None:
            unit.users.add(person("ada"))
            unit.ledger.book(move("t", "deposit", "d", PROVIDER, (ADA, ngn(5))))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(change)
        assert balance(store, ADA) == (0, 0)
        assert store.run(lambda unit: unit.users.by_email("ada@example.org")) is None

    def test_result_is_returned(self, store: Store) -> None:
        assert store.run(lambda unit: 42) == 42

    def test_read_sees_committed_rows(self, store: Store) -> None:
        store.run(lambda unit: unit.users.add(person("ada")))
        assert store.read(lambda unit: unit.users.get("ada")) == person("ada")


class TestLedger:
    def test_booking_changes_both_accounts(self, store: Store) -> None:
        deposit(store, ADA, 1_000)
        paid = move("t2", "pay", "p1", ADA, (BEN, ngn(570)), (FEES, ngn(30)))
        store.run(lambda unit: unit.ledger.book(paid))
        assert balance(store, ADA) == (400, 0)
        assert balance(store, BEN) == (570, 0)
        assert (total(store, FEES), total(store, PROVIDER)) == (30, -1_000)
        assert differences(store) == []

    def test_wallet_cannot_go_below_zero(self, store: Store) -> None:
        deposit(store, ADA, 100)
        with pytest.raises(InsufficientFunds):
            store.run(lambda w: w.ledger.book(move("t2", "pay", "p1", ADA, (BEN, ngn(101)))))
        assert balance(store, ADA) == (100, 0)
        assert balance(store, BEN) == (0, 0)

    def test_empty_wallet_cannot_pay(self, store: Store) -> None:
        with pytest.raises(InsufficientFunds):
            store.run(lambda w: w.ledger.book(move("t", "pay", "p", ADA, (BEN, ngn(1)))))

    def test_same_reference_is_booked_once(self, store: Store) -> None:
        deposit(store, ADA, 100)
        with pytest.raises(AlreadyBooked):
            again = move("other-id", "deposit", "d1", PROVIDER, (ADA, ngn(100)))
            store.run(lambda unit: unit.ledger.book(again))
        assert balance(store, ADA) == (100, 0)

    def test_reserved_money_cannot_be_spent(self, store: Store) -> None:
        deposit(store, ADA, 100)
        store.run(lambda w: w.ledger.reserve(PendingTransfer("p", "withdraw", "w1", ADA, ngn(60))))
        assert balance(store, ADA) == (100, 60)
        with pytest.raises(InsufficientFunds):
            store.run(lambda w: w.ledger.book(move("t2", "pay", "p1", ADA, (BEN, ngn(41)))))
        with pytest.raises(InsufficientFunds):
            store.run(
                lambda w: w.ledger.reserve(PendingTransfer("q", "withdraw", "w2", ADA, ngn(41)))
            )
        store.run(lambda w: w.ledger.book(move("t3", "pay", "p2", ADA, (BEN, ngn(40)))))
        assert balance(store, ADA) == (60, 60)
        assert differences(store) == []

    @pytest.mark.parametrize("second", ["post", "void"])
    @pytest.mark.parametrize("first", ["post", "void"])
    def test_reservation_is_settled_once(self, store: Store, first: str, second: str) -> None:
        deposit(store, ADA, 100)
        pending = PendingTransfer("p", "withdraw", "w1", ADA, ngn(60))
        store.run(lambda unit: unit.ledger.reserve(pending))

        def settle(how: str, id: str) -> None:
            if how == "post":
                booked = pending.post(id, [Entry(FEES, ngn(60))])
                store.run(lambda unit: unit.ledger.book(booked))
            else:
                store.run(lambda unit: unit.ledger.void(id, "p"))

        settle(first, "s1")
        after = (40, 0) if first == "post" else (100, 0)
        assert balance(store, ADA) == after
        with pytest.raises(AlreadySettled):
            settle(second, "s2")
        assert balance(store, ADA) == after
        assert total(store, FEES) == (60 if first == "post" else 0)
        assert differences(store) == []

    def test_second_settlement_is_rejected_despite_other_reservations(self, store: Store) -> None:
        deposit(store, ADA, 100)
        store.run(lambda w: w.ledger.reserve(PendingTransfer("p", "withdraw", "w1", ADA, ngn(30))))
        store.run(lambda w: w.ledger.reserve(PendingTransfer("q", "withdraw", "w2", ADA, ngn(30))))
        store.run(lambda w: w.ledger.void("s1", "p"))
        with pytest.raises(AlreadySettled):
            store.run(lambda w: w.ledger.void("s2", "p"))
        assert balance(store, ADA) == (100, 30)

    def test_unknown_reservation_raises_key_error(self, store: Store) -> None:
        with pytest.raises(KeyError):
            store.run(lambda unit: unit.ledger.void("s", "nothing"))

    def test_pending_transfer_is_read_back(self, store: Store) -> None:
        deposit(store, ADA, 100)
        pending = PendingTransfer("p", "withdraw", "w1", ADA, ngn(60))
        store.run(lambda unit: unit.ledger.reserve(pending))
        assert store.run(lambda unit: unit.ledger.pending("p")) == pending

    def test_statement_lines_are_read_newest_first_in_pages(self, store: Store) -> None:
        for i in range(1, 6):
            deposit(store, ADA, i, f"d{i}")
        first = store.run(lambda unit: unit.ledger.lines(ADA, None, 2))
        assert [(x.amount.minor, x.balance_after.minor) for x in first] == [(5, 15), (4, 10)]
        assert (first[0].reason, first[0].reference, first[0].at) == ("deposit", "d5", NOW)
        rest = store.run(lambda unit: unit.ledger.lines(ADA, first[-1].id, 10))
        assert [x.amount.minor for x in rest] == [3, 2, 1]

    def test_wallets_are_found_by_owner(self, store: Store) -> None:
        deposit(store, ADA, 5)
        dollars = Account(AccountKind.WALLET, "USD", "ada")
        paid = move("u", "deposit", "u", Account(AccountKind.PROVIDER, "USD"),
                    (dollars, Money(7, "USD")))  # fmt: skip
        store.run(lambda unit: unit.ledger.book(paid))
        deposit(store, BEN, 9, "d2")
        found = store.run(lambda unit: unit.ledger.wallets("ada"))
        assert [(a.currency, b.posted.minor) for a, b in found] == [("NGN", 5), ("USD", 7)]


class TestEscrows:
    def test_added_escrow_is_read_back(self, store: Store) -> None:
        add(store, agreement())
        assert store.run(lambda unit: unit.escrows.get("e1")) == agreement()
        with pytest.raises(KeyError):
            store.run(lambda unit: unit.escrows.get("nothing", lock=True))

    def test_all_fields_of_a_change_are_stored(self, store: Store) -> None:
        add(store, agreement())

        def change(unit: UnitOfWork) -> Escrow:
            found = unit.escrows.get("e1", lock=True)
            after = found.accept(Party.FREELANCER)
            unit.escrows.save(after)
            after = after.fund(Party.CLIENT)
            unit.escrows.save(after)
            after = after.submit("e1-m2", Party.FREELANCER, NOW)
            unit.escrows.save(after)
            return after

        after = store.run(change)
        assert store.run(lambda unit: unit.escrows.get("e1")) == after

    def test_stale_version_is_rejected(self, store: Store) -> None:
        add(store, agreement())
        first = agreement().accept(Party.FREELANCER)
        store.run(lambda unit: unit.escrows.save(first))
        with pytest.raises(StaleVersion):
            store.run(lambda unit: unit.escrows.save(first))

    def test_escrows_of_a_user_are_listed_newest_first_in_pages(self, store: Store) -> None:
        add(store, *(agreement(f"e{i}") for i in range(1, 6)))
        first = store.run(lambda unit: unit.escrows.of("ben", None, 2))
        assert [e.id for e in first] == ["e5", "e4"]
        assert first[0] == agreement("e5")
        rest = store.run(lambda unit: unit.escrows.of("ada", "e4", 9))
        assert [e.id for e in rest] == ["e3", "e2", "e1"]
        assert store.run(lambda unit: unit.escrows.of("eve", None, 9)) == []

    def test_silence_is_found_after_the_agreed_days(self, store: Store) -> None:
        add(store, agreement())

        def change(unit: UnitOfWork) -> None:
            for step in (
                lambda e: e.accept(Party.FREELANCER),
                lambda e: e.fund(Party.CLIENT),
                lambda e: e.submit("e1-m1", Party.FREELANCER, NOW),
            ):
                unit.escrows.save(step(unit.escrows.get("e1", lock=True)))

        store.run(change)
        day = timedelta(days=7)
        early = NOW + day - timedelta(seconds=1)
        assert store.run(lambda unit: unit.escrows.silent_since(early, 9)) == []
        due = store.run(lambda unit: unit.escrows.silent_since(NOW + day, 9))
        assert due == [("e1", "e1-m1")]


class TestUsers:
    def test_email_address_belongs_to_one_user(self, store: Store) -> None:
        store.run(lambda unit: unit.users.add(person("ada")))
        twin = User("other", "ada@example.org", "Other", Role.MEMBER, "hash", NOW)
        with pytest.raises(EmailTaken):
            store.run(lambda unit: unit.users.add(twin))
        assert store.run(lambda unit: unit.users.by_email("ada@example.org")) == person("ada")

    def test_changes_are_stored(self, store: Store) -> None:
        store.run(lambda unit: unit.users.add(person("ada")))
        changed = User("ada", "ada@example.org", "Ada", Role.ARBITER, "new", NOW, 2)
        store.run(lambda unit: unit.users.save(changed))
        assert store.run(lambda unit: unit.users.get("ada")) == changed
        with pytest.raises(KeyError):
            store.run(lambda unit: unit.users.get("nobody"))


class TestIdempotency:
    def test_stored_answer_is_returned_only_for_the_same_request(self, store: Store) -> None:
        def first(unit: UnitOfWork) -> None:
            assert unit.idempotency.claim("ada", "k", "print") is None
            unit.idempotency.keep("ada", "k", "print", StoredResponse(201, "body"), NOW)

        store.run(first)
        again = store.run(lambda unit: unit.idempotency.claim("ada", "k", "print"))
        assert again == StoredResponse(201, "body")
        with pytest.raises(KeyReused):
            store.run(lambda unit: unit.idempotency.claim("ada", "k", "another"))
        assert store.run(lambda unit: unit.idempotency.claim("ben", "k", "another")) is None

    def test_failed_request_leaves_the_key_unused(self, store: Store) -> None:
        def failing(unit: UnitOfWork) -> None:
            unit.idempotency.claim("ada", "k", "print")
            unit.idempotency.keep("ada", "k", "print", StoredResponse(201, "body"), NOW)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(failing)
        assert store.run(lambda unit: unit.idempotency.claim("ada", "k", "print")) is None

    def test_old_answers_are_deleted(self, store: Store) -> None:
        store.run(lambda w: w.idempotency.keep("ada", "k", "p", StoredResponse(200, ""), NOW))
        assert store.run(lambda w: w.idempotency.forget(NOW)) == 0
        assert store.run(lambda w: w.idempotency.forget(NOW + timedelta(seconds=1))) == 1
        assert store.run(lambda w: w.idempotency.claim("ada", "k", "p")) is None


def test_audit_log_is_read_newest_first(store: Store) -> None:
    lines = [
        AuditLine(f"a{i}", NOW, "ada", "accept", "e1", "draft", "accepted", "r", "127.0.0.1")
        for i in range(3)
    ]
    for line in lines:
        store.run(lambda unit, line=line: unit.audit(line))  # type: ignore[misc]
    assert store.run(lambda unit: unit.audited(None, 2)) == [lines[2], lines[1]]
    assert store.run(lambda unit: unit.audited("a1", 2)) == [lines[0]]


def test_event_is_published(store: Store) -> None:
    store.run(lambda unit: unit.publish(OutboxEvent("o1", "escrow.accepted", "e1", {"n": 1}, NOW)))


class TestTheDatabaseItself:
    """Constraints and triggers that hold for any client of the database."""

    @pytest.fixture(autouse=True)
    def money(self, engine: Engine) -> None:
        deposit(DatabaseStore(engine, lambda: NOW), ADA, 100)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE entries SET amount = 1",
            "DELETE FROM entries",
            "UPDATE transfers SET reason = 'x'",
            "DELETE FROM transfers",
            "UPDATE accounts SET posted = -1 WHERE id = 'wallet:ada:NGN'",
            "UPDATE accounts SET reserved = 101 WHERE id = 'wallet:ada:NGN'",
            "UPDATE accounts SET posted = NULL WHERE id = 'wallet:ada:NGN'",
            "UPDATE accounts SET posted = 0, reserved = 0, version = 0 WHERE kind = 'provider'",
            "INSERT INTO entries (transfer_id, account_id, currency, amount)"
            " VALUES ('t-d1', 'provider:NGN', 'NGN', 5)",
            "INSERT INTO entries (transfer_id, account_id, currency, amount)"
            " VALUES ('of-nothing', 'provider:NGN', 'NGN', 5)",
            "INSERT INTO entries (transfer_id, account_id, currency, amount)"
            " VALUES ('x', 'provider:NGN', 'USD', 5)",
            "INSERT INTO entries (transfer_id, account_id, currency, amount)"
            " VALUES ('x', 'provider:NGN', 'NGN', 0)",
            "INSERT INTO transfers (id, kind, reason, reference, at)"
            " VALUES ('x', 'direct', 'r', 'r', '2026-01-01')",
            "INSERT INTO transfers (id, kind, reason, reference, at)"
            " VALUES ('x', 'void', 'r', 'r', '2026-01-01')",
        ],
    )
    def test_triggers_and_constraints_reject_invalid_bookings(
        self, engine: Engine, statement: str
    ) -> None:
        with pytest.raises(DBAPIError):
            with engine.begin() as connection:
                connection.execute(text(statement))
        assert differences(DatabaseStore(engine, lambda: NOW)) == []

    def test_entries_that_do_not_sum_to_zero_are_rejected(self, engine: Engine) -> None:
        with pytest.raises(DBAPIError, match="do not"):
            with engine.begin() as connection:
                for account, amount in (("provider:NGN", -5), ("fees:NGN", 4)):
                    connection.execute(
                        text(
                            "INSERT INTO accounts (id, kind, owner, currency)"
                            " VALUES (:a, :k, '', 'NGN') ON CONFLICT DO NOTHING"
                        ),
                        {"a": account, "k": account.partition(":")[0]},
                    )
                    connection.execute(
                        text(
                            "INSERT INTO entries (transfer_id, account_id, currency, amount)"
                            " VALUES ('x', :a, 'NGN', :m)"
                        ),
                        {"a": account, "m": amount},
                    )
                connection.execute(
                    text(
                        "INSERT INTO transfers (id, kind, reason, reference, at)"
                        " VALUES ('x', 'direct', 'r', 'r', '2026-01-01')"
                    )
                )

    def test_audit_log_is_append_only(self, engine: Engine) -> None:
        line = AuditLine("a", NOW, "ada", "accept", "e1", "x", "y", "r", "127.0.0.1")
        DatabaseStore(engine, lambda: NOW).run(lambda unit: unit.audit(line))
        for statement in ("UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log"):
            with pytest.raises(DBAPIError, match="append-only"):
                with engine.begin() as connection:
                    connection.execute(text(statement))

    def test_difference_between_balance_and_entries_is_found(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE accounts SET posted = 99 WHERE owner = 'ada'"))
        found = differences(DatabaseStore(engine, lambda: NOW))
        assert found == ["wallet:ada:NGN: holds 99, the entries sum to 100"]

    def test_funded_milestone_without_hold_is_found(self, engine: Engine) -> None:
        store = DatabaseStore(engine, lambda: NOW)
        add(store, agreement())
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE milestones SET state = :s WHERE id = 'e1-m1'"),
                {"s": MilestoneState.FUNDED.value},
            )
        assert differences(store) == ["milestone e1-m1 is funded, its hold has 0"]

    def test_constraints_reject_unknown_roles_and_states(self, engine: Engine) -> None:
        add(DatabaseStore(engine, lambda: NOW), agreement())
        for statement in (
            "UPDATE users SET role = 'god'",
            "UPDATE users SET email = 'ADA@example.org' WHERE id = 'ada'",
            "UPDATE escrows SET state = 'lost'",
            "UPDATE milestones SET state = 'lost'",
            "UPDATE escrows SET freelancer_id = client_id",
        ):
            with pytest.raises(IntegrityError), engine.begin() as connection:
                connection.execute(text(statement))


def test_read_does_not_wait_for_a_writer(engine: Engine) -> None:
    store = DatabaseStore(engine, lambda: NOW)
    deposit(store, ADA, 100)

    def outer(unit: UnitOfWork) -> Money:
        unit.ledger.book(move("t2", "pay", "p1", ADA, (BEN, ngn(30))))
        return store.read(lambda inside: inside.ledger.balance(ADA)).posted

    assert store.run(outer) == ngn(100)
    assert balance(store, ADA) == (70, 0)


def test_concurrent_payments_cannot_overspend(engine: Engine) -> None:
    store = DatabaseStore(engine, lambda: NOW)
    deposit(store, ADA, 100)
    outcomes: list[str] = []

    def pay(i: int) -> None:
        try:
            store.run(lambda w: w.ledger.book(move(f"x{i}", "pay", f"p{i}", ADA, (BEN, ngn(30)))))
            outcomes.append("paid")
        except InsufficientFunds:
            outcomes.append("refused")

    threads = [threading.Thread(target=pay, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["paid"] * 3 + ["refused"] * 5
    assert balance(store, ADA) == (10, 0)
    assert differences(store) == []


def test_payments_in_both_directions_do_not_deadlock(engine: Engine) -> None:
    store = DatabaseStore(engine, lambda: NOW)
    deposit(store, ADA, 1_000)
    deposit(store, BEN, 1_000, "d2")
    failures: list[Exception] = []

    def pay(source: Account, target: Account, name: str) -> None:
        try:
            for i in range(15):
                booked = move(f"{name}{i}", "pay", f"{name}{i}", source, (target, ngn(1)))
                store.run(lambda unit, booked=booked: unit.ledger.book(booked))  # type: ignore
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=pay, args=args)
        for args in ((ADA, BEN, "a"), (BEN, ADA, "b"), (ADA, BEN, "c"), (BEN, ADA, "d"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert balance(store, ADA) == balance(store, BEN) == (1_000, 0)


def test_booking_needs_few_statements(engine: Engine) -> None:
    store = DatabaseStore(engine, lambda: NOW)
    deposit(store, ADA, 100)
    booked = move("t2", "pay", "p1", ADA, (BEN, ngn(95)), (FEES, ngn(5)))
    with counted(engine) as asked:
        store.run(lambda unit: unit.ledger.book(booked))
    assert len(asked) == (5 if engine.dialect.name == "postgresql" else 6)
