"""The register of workers in memory and on SQLite."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, create_engine

from amani_app.adapters.database.workers import DatabaseWorkerRegister
from amani_app.adapters.memory.workers import MemoryWorkerRegister
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.workers import WorkerRegister
from tests.support.contracts.workers import *  # noqa: F401,F403
from tests.support.contracts.workers import NOW


@pytest.fixture(params=["memory", "sqlite"])
def register(request: pytest.FixtureRequest) -> WorkerRegister:
    if request.param == "memory":
        return MemoryWorkerRegister()
    engine: Engine = request.getfixturevalue("engine")
    return DatabaseWorkerRegister(engine)


def test_absent_database_is_unavailable() -> None:
    engine = create_engine("sqlite:////no/such/folder/x.sqlite3")
    with pytest.raises(DatabaseUnavailable):
        DatabaseWorkerRegister(engine).beat("w", "1.0.0", NOW)
