"""Releases that change a real database under load, and the ways back from them."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from deploy.fleet.fleet import Fleet
from tests.revisions import ADD, DROP, checkout, head

from .operator import Operator, Outcome
from .traffic import Writer, traffic

SQLITE = (
    "import sqlite3; c = sqlite3.connect('/data/amani.sqlite3');"
    " print(c.execute('SELECT version_num FROM alembic_version').fetchone()[0])"
)


@pytest.fixture(scope="module")
def changing_releases(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the fleet's registry 3.0.0, which adds a column, and 4.0.0, which takes it away."""
    folder = tmp_path_factory.mktemp("changing")
    made = Operator(standing_fleet, folder)
    add = ("a001", head(), "expand", ADD, DROP)
    drop = ("a002", "a001", "contract", DROP, ADD)
    made.publish("3.0.0", source=checkout(folder / "adds", add))
    made.publish("4.0.0", source=checkout(folder / "drops", add, drop))


def kinds(outcome: Outcome) -> list[str]:
    """What was done, in order, each run of equal steps once."""
    done = [kind for _, kind in outcome.done()]
    return [kind for n, kind in enumerate(done) if n == 0 or done[n - 1] != kind]


def test_a_release_that_adds_and_one_that_takes_away_lose_no_request(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1, 2], workers=[2])

    def live() -> str:
        with psycopg.connect(operator.fleet.database_url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""

    add_and_take_away(operator, live)


def test_the_same_with_sqlite_in_a_volume_of_one_host(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1], workers=[1])
    settings = {"ENVIRONMENT": "staging", "DATABASE_URL": "sqlite:////data/amani.sqlite3"}
    operator.change(settings=settings, secrets=["SECRET_KEY"], volumes={"data": "/data"})

    def live() -> str:
        script = 'docker exec $(docker ps -qf label=amani.role=web | head -n 1) python -c "$1"'
        return operator.fleet.hosts[0].run(["sh", "-c", script, "live", SQLITE]).strip()

    add_and_take_away(operator, live)


def add_and_take_away(operator: Operator, live: Callable[[], str]) -> None:
    """Forward over both kinds of change, and back in each case; `live` tells the revision."""
    first = head()

    def back(version: str, *more: str) -> Outcome:
        return operator.run("rollback", f"--version={version}", "--auto-confirm", *more)

    operator.deploy("1.0.0")
    domain = operator.environment.domain
    writer = Writer(operator.environment.hosts[0].address, domain, pause=0.6)
    with writer, traffic(operator.addresses(), domain) as seen:
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
    assert set(writer.statuses) == {201} and writer.statuses[201] > 20, writer.statuses
    assert writer.lost() == []
