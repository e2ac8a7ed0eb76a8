"""Random sequences of actions on the stores in memory and on SQLite."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from amani_app.adapters.database.store import DatabaseStore
from amani_app.adapters.memory.store import MemoryStore
from tests.support.contracts.money_machine import Clock, Machine
from tests.support.state_machine import run_machine

pytestmark = [pytest.mark.timeout(1800), pytest.mark.explore]


def test_money_is_conserved_in_memory() -> None:
    clock = Clock()
    # A store for each example: this one reads everything, so it slows down as it fills.
    run_machine(lambda: Machine(MemoryStore(clock), clock), examples=60, steps=50)


def test_money_is_conserved_on_sqlite(engine: Engine) -> None:
    clock = Clock()
    store = DatabaseStore(engine, clock)
    run_machine(lambda: Machine(store, clock), examples=8, steps=40)
