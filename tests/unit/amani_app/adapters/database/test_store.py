"""The store in memory and on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from amani_app.adapters.database.store import DatabaseStore
from amani_app.adapters.memory.store import MemoryStore
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.store import Store
from tests.support.contracts.store import *  # noqa: F401,F403
from tests.support.contracts.store import NOW


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(lambda: NOW)
    engine: Engine = request.getfixturevalue("engine")
    return DatabaseStore(engine, lambda: NOW)


def test_absent_server_is_unavailable(tmp_path: Path) -> None:
    engine = create_engine(f"postgresql+psycopg://amani@/none?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable):
        DatabaseStore(engine, lambda: NOW).run(lambda work: work.users.by_email("x"))
