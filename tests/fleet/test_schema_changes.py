"""Releases that change a real PostgreSQL under load, and the ways back from them."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.revisions import ADD, DROP, checkout, head

from .operator import Operator, Outcome
from .traffic import traffic


def kinds(outcome: Outcome) -> list[str]:
    """What was done, in order, each run of equal steps once."""
    done = [kind for _, kind in outcome.done()]
    return [kind for n, kind in enumerate(done) if n == 0 or done[n - 1] != kind]


def test_a_release_that_adds_and_one_that_takes_away_lose_no_request(
    operator: Operator, tmp_path: Path
) -> None:
    operator.fleet.up(3, web=[1, 2], workers=[2])
    first = head()
    add = ("a001", first, "expand", ADD, DROP)
    drop = ("a002", "a001", "contract", DROP, ADD)
    operator.publish("3.0.0", source=checkout(tmp_path / "adds", add))
    operator.publish("4.0.0", source=checkout(tmp_path / "drops", add, drop))

    def live() -> str:
        with psycopg.connect(operator.fleet.database_url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""

    def back(version: str, *more: str) -> Outcome:
        return operator.run("rollback", f"--version={version}", "--auto-confirm", *more)

    operator.deploy("1.0.0")
    with traffic(operator.addresses(), operator.environment.domain) as seen:
        operator.deploy("2.0.0")
        same = back("1.0.0")
        assert same.status == 0, same.errors
        assert live() == first

        adding = kinds(operator.deploy("3.0.0"))
        assert adding.index("backup") < adding.index("migrate") < adding.index("shift")
        assert live() == "a001"

        # The normal way back: the schema only grew, so it stays.
        left = back("1.0.0")
        assert left.status == 0, left.errors
        assert not {"backup", "migrate", "downgrade"} & set(kinds(left))
        assert live() == "a001"

        assert "migrate" not in kinds(operator.deploy("3.0.0"))
        dropping = kinds(operator.deploy("4.0.0"))
        assert dropping.index("backup") < dropping.index("shift")
        assert dropping.index("retire") < dropping.index("migrate")
        assert live() == "a002"

        refused = back("3.0.0")
        assert refused.status == 3
        assert "a002 (contract) took away" in refused.errors
        assert "--with-downgrade" in refused.errors
        assert set(operator.versions().values()) == {"4.0.0"}

        undone = back("3.0.0", "--with-downgrade")
        assert undone.status == 0, undone.errors
        order = kinds(undone)
        assert order.index("backup") < order.index("downgrade") < order.index("shift")
        assert live() == "a001"
        assert set(operator.versions().values()) == {"3.0.0"}
    assert seen.failures == {}
    assert all(count > 50 for count in seen.requests.values())
