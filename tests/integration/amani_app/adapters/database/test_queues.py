"""Deposits, withdrawals, virtual accounts, inbox and outbox on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from amani_app.adapters.database.store import DatabaseStore
from amani_app.ports.store import Store
from tests.support.contracts.queues import *  # noqa: F401,F403
from tests.support.contracts.queues import NOW, prepare

pytestmark = pytest.mark.postgres


@pytest.fixture
def store(engine: Engine) -> Store:
    store = DatabaseStore(engine, lambda: NOW)
    prepare(store)
    return store
