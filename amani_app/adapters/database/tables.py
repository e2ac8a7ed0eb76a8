"""The tables."""

from __future__ import annotations

from sqlalchemy import Column, String, Table

from amani_app.adapters.database.columns import UtcDateTime
from amani_app.adapters.database.engine import db

worker_heartbeats = Table(
    "worker_heartbeats",
    db.metadata,
    Column("name", String(128), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("seen_at", UtcDateTime(), nullable=False),
)
