"""Deposits, withdrawals, virtual accounts, inbox and outbox in memory and on SQLite."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from amani_app.adapters.database.store import DatabaseStore
from amani_app.adapters.memory.store import MemoryStore
from amani_app.ports.store import Store
from tests.support.contracts.queues import *  # noqa: F401,F403
from tests.support.contracts.queues import NOW, prepare


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    store: Store
    if request.param == "memory":
        store = MemoryStore(lambda: NOW)
    else:
        engine: Engine = request.getfixturevalue("engine")
        store = DatabaseStore(engine, lambda: NOW)
    prepare(store)
    return store
