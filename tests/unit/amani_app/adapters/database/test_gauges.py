"""Prometheus gauges of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from amani_app.adapters.database import gauges
from amani_app.adapters.database.engine import db
from amani_app.adapters.database.gauges import LedgerGauges
from amani_app.adapters.database.store import DatabaseStore
from amani_app.domain.escrow import EscrowState
from amani_app.domain.ledger import ATTRIBUTED, Account, AccountKind, move
from amani_app.domain.money import Money

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def told(books: LedgerGauges) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in books.collect()
        for sample in family.samples
    }


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database without triggers, which accepts books out of balance."""
    engine = create_engine(f"sqlite:///{tmp_path}/books.sqlite3")
    db.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def books(engine: Engine) -> LedgerGauges:
    return LedgerGauges(engine)


def enter(engine: Engine, *amounts: int) -> None:
    with engine.begin() as connection:
        for number, amount in enumerate(amounts):
            connection.execute(
                text(
                    "INSERT INTO entries (transfer_id, account_id, currency, amount)"
                    " VALUES ('t', :account, 'NGN', :amount)"
                ),
                {"account": f"{number}:NGN", "amount": amount},
            )


def test_imbalance_gauge_is_zero_for_balanced_books(engine, books, monkeypatch):
    enter(engine, 700, -700)
    assert told(books)[("amani_ledger_imbalance_minor", "NGN")] == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE entries SET amount = 701 WHERE amount = 700"))
    assert told(books)[("amani_ledger_imbalance_minor", "NGN")] == 0, "read once a minute"
    monkeypatch.setattr(gauges, "FRESH", -1)
    assert told(books)[("amani_ledger_imbalance_minor", "NGN")] == 1


def test_suspense_gauge_counts_unattributed_transfers(engine, books, monkeypatch):
    monkeypatch.setattr(gauges, "FRESH", -1)
    assert told(books)[("amani_suspense_waiting",)] == 0
    store = DatabaseStore(engine, lambda: NOW)
    suspense = Account(AccountKind.SUSPENSE, "NGN")
    provider = Account(AccountKind.PROVIDER, "NGN")
    for id, reason, reference, source, target, waiting in (
        ("t1", "unattributed", "r1", provider, suspense, 1),
        ("t2", "paid-late", "r2", suspense, provider, 2),
        ("t3", ATTRIBUTED, "t1", suspense, provider, 1),
    ):
        made = move(id, reason, reference, source, (target, Money(5, "NGN")))
        store.run(lambda unit, made=made: unit.ledger.book(made))
        assert told(books)[("amani_suspense_waiting",)] == waiting


def test_escrow_gauge_counts_by_state_and_currency(engine, books):
    state = next(iter(EscrowState)).value
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO escrows (id, title, client_id, freelancer_id, currency,"
                " fee_basis_points, silence_days, state, version, created_at)"
                " VALUES ('e', 'a', 'c', 'f', 'NGN', 0, 1, :state, 1, '2026-01-01 00:00:00')"
            ),
            {"state": state},
        )
    found = told(books)
    assert found[("amani_escrows", state, "NGN")] == 1
    assert found[("amani_books_readable",)] == 1


def test_unreachable_database_sets_books_readable_to_zero_until_it_answers(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/books.sqlite3")
    books = LedgerGauges(engine)
    assert told(books) == {("amani_books_readable",): 0}
    db.metadata.create_all(engine)
    assert told(books)[("amani_books_readable",)] == 1
    engine.dispose()


def test_metrics_endpoint_includes_book_gauges(app):
    with app.app_context():
        db.metadata.create_all(app.extensions["amani"].engine)
    answer = app.test_client().get("/metrics").get_data(as_text=True)
    assert "\namani_books_readable 1.0\n" in f"\n{answer}"
    assert "amani_http_running" in answer
