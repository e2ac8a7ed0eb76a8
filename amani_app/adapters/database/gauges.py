"""Metrics of the ledger and the escrows, read at most once a minute in each process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from amani_app.adapters.database.ledger import UNATTRIBUTED
from amani_app.adapters.database.tables import accounts, entries, escrows, milestones

FRESH = 60.0
"""Seconds for which values are cached: the sums read whole tables."""

_Query = tuple[str, str, tuple[str, ...], Select[Any]]

_QUERIES: tuple[_Query, ...] = (
    (
        "amani_escrows",
        "Number of escrows.",
        ("state", "currency"),
        select(escrows.c.state, escrows.c.currency, func.count()).group_by(
            escrows.c.state, escrows.c.currency
        ),
    ),
    (
        "amani_escrow_volume_minor",
        "Total price of all escrows, in minor units.",
        ("currency",),
        select(escrows.c.currency, func.sum(milestones.c.amount))
        .join(milestones, milestones.c.escrow_id == escrows.c.id)
        .group_by(escrows.c.currency),
    ),
    (
        "amani_balance_minor",
        "Balances of wallets and holds, in minor units.",
        ("kind", "currency"),
        select(accounts.c.kind, accounts.c.currency, func.sum(accounts.c.posted))
        .where(accounts.c.posted.is_not(None))
        .group_by(accounts.c.kind, accounts.c.currency),
    ),
    (
        "amani_ledger_imbalance_minor",
        "Sum of all entries in minor units; must be 0.",
        ("currency",),
        select(entries.c.currency, func.sum(entries.c.amount)).group_by(entries.c.currency),
    ),
    (
        "amani_suspense_waiting",
        "Unattributed items in suspense.",
        (),
        select(func.count()).select_from(UNATTRIBUTED.subquery()),
    ),
)


class LedgerGauges(Collector):
    """Gauges of a SQLAlchemy engine.

    If the database is unreachable, only `amani_books_readable` is left, with the value 0.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._kept: list[GaugeMetricFamily] = []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH:
                try:
                    self._kept = self._read()
                    self._read_at = time.monotonic()
                except SQLAlchemyError:
                    self._kept = []
            readable = GaugeMetricFamily(
                "amani_books_readable", "1 if the database answers, else 0."
            )
            readable.add_metric([], float(bool(self._kept)))
            return [readable, *self._kept]

    def _read(self) -> list[GaugeMetricFamily]:
        made = []
        with self._engine.connect() as connection:
            for name, description, labels, query in _QUERIES:
                gauge = GaugeMetricFamily(name, description, labels=labels)
                for row in connection.execute(query):
                    gauge.add_metric(row[:-1], float(row[-1]))
                made.append(gauge)
        return made
