"""Random sequences of actions on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from amani_app.adapters.database.store import DatabaseStore
from tests.support.contracts.money_machine import Clock, Machine
from tests.support.state_machine import run_machine


@pytest.mark.postgres
@pytest.mark.timeout(1800)
@pytest.mark.explore
def test_money_is_conserved_on_postgresql(engine: Engine) -> None:
    clock = Clock()
    store = DatabaseStore(engine, clock)
    run_machine(lambda: Machine(store, clock), examples=8, steps=40)
