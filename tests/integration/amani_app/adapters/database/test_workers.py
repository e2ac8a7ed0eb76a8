"""The register of workers on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from amani_app.adapters.database.workers import DatabaseWorkerRegister
from amani_app.ports.workers import WorkerRegister
from tests.support.contracts.workers import *  # noqa: F401,F403

pytestmark = pytest.mark.postgres


@pytest.fixture
def register(engine: Engine) -> WorkerRegister:
    return DatabaseWorkerRegister(engine)
