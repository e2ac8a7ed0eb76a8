"""Tables and columns that a downgrade drops although they have values."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from amani_app.adapters.database.loss import find_losses
from amani_app.adapters.database.revisions import read_revisions
from amani_app.ports.schema import UnknownRevision
from tests.support.service_fixtures import ROOT

HEAD, OLDER = read_revisions()
MIGRATIONS = ROOT / "migrations"


def losses(engine: Engine, to: str) -> list[str]:
    return list(find_losses(engine, MIGRATIONS, HEAD, to))


def test_empty_tables_are_no_loss(engine: Engine) -> None:
    assert losses(engine, "base") == []


def test_table_with_rows_is_a_loss(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in ("a", "b"):
            row = f"INSERT INTO worker_heartbeats VALUES ('{name}', '1.0.0', '2026-11-24 00:00:00')"
            connection.execute(text(row))
    assert losses(engine, "base") == ["table worker_heartbeats: 2 rows"]


def test_downgrade_to_the_live_revision_loses_nothing(engine: Engine) -> None:
    assert losses(engine, HEAD) == []


def test_unknown_revision_is_rejected(engine: Engine) -> None:
    with pytest.raises(UnknownRevision):
        losses(engine, "nowhere")
