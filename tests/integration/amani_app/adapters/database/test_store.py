"""The store on PostgreSQL."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from amani_app.adapters.database.store import DatabaseStore
from amani_app.domain.errors import InsufficientFunds
from amani_app.domain.ledger import Account, AccountKind, move
from amani_app.ports.store import AuditLine, KeyInUse, Store, UnitOfWork
from tests.support.contracts.store import *  # noqa: F401,F403
from tests.support.contracts.store import ADA, BEN, NOW, deposit, ngn, person

pytestmark = pytest.mark.postgres


@pytest.fixture
def store(engine: Engine) -> Store:
    return DatabaseStore(engine, lambda: NOW)


def test_read_only_transaction_cannot_write(store: Store) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        store.read(lambda unit: unit.users.add(person("ada")))


def test_deadlock_is_retried(store: Store) -> None:
    tries: list[int] = []

    def change(unit: UnitOfWork) -> str:
        tries.append(1)
        if len(tries) < 3:
            unit.ledger._run(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))  # type: ignore
        return "done"

    assert store.run(change) == "done"
    assert len(tries) == 3


def test_serialization_conflict_is_retried_at_most_five_times(store: Store) -> None:
    tries: list[int] = []

    def change(unit: UnitOfWork) -> None:
        tries.append(1)
        unit.ledger._run(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))  # type: ignore

    with pytest.raises(DBAPIError):
        store.run(change)
    assert len(tries) == 5


def test_key_of_a_running_request_is_in_use(store: Store) -> None:

    def outer(unit: UnitOfWork) -> None:
        unit.idempotency.claim("ada", "k", "print")
        with pytest.raises(KeyInUse):
            store.run(lambda inner: inner.idempotency.claim("ada", "k", "print"))
        assert store.run(lambda inner: inner.idempotency.claim("ada", "other", "print")) is None

    store.run(outer)


def test_statements_prepared_by_a_rejected_unit_are_reusable(
    store: Store,
) -> None:
    never_opened = Account(AccountKind.WALLET, "NGN", "nobody")
    for number in range(3):
        booked = move(f"n{number}", "pay", f"n{number}", never_opened, (BEN, ngn(5)))
        with pytest.raises(InsufficientFunds):
            store.run(lambda unit: unit.ledger.book(booked))  # noqa: B023
    deposit(store, ADA, 100)
    assert store.read(lambda unit: unit.ledger.balance(ADA)).posted == ngn(100)


def test_unit_that_continues_after_an_error_is_not_committed(
    store: Store,
) -> None:
    line = AuditLine("a", NOW, "ada", "accept", "e1", "x", "y", "r", "127.0.0.1")

    def change(unit: UnitOfWork) -> None:
        unit.audit(line)
        with contextlib.suppress(DBAPIError):
            unit.ledger._run(text("SELECT 1 / 0"))  # type: ignore[attr-defined]

    with pytest.raises(RuntimeError, match="ROLLBACK"):
        store.run(change)
    assert store.read(lambda unit: unit.audited(None, 5)) == []


def test_text_with_nul_is_rejected_and_not_truncated(store: Store) -> None:
    line = AuditLine("a", NOW, "ada", "accept", "e1", "x\0y", "y", "r", "127.0.0.1")
    with pytest.raises(ValueError, match="NUL"):
        store.run(lambda unit: unit.audit(line))
    assert store.read(lambda unit: unit.audited(None, 5)) == []
