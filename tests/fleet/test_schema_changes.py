"""Releases that change a real database under load, and the ways back from them."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest

from deploy.checkout import ROOT
from deploy.fleet.fleet import Fleet
from tests.guide import commands
from tests.revisions import ADD, DROP, checkout, head

from .operator import Operator, Outcome, at
from .traffic import Writer, traffic

GUIDE = ROOT / "docs" / "migrations.md"
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
    operator.change(backups={"parallel_from": 0, "jobs": 2})

    add_and_take_away(operator, lambda: live_on_server(operator))
    # What is backed up before a change is dumped as any other: here by two jobs.
    folder = f"{operator.environment.folder}/backups"
    script = 'for path in "$1"/*/manifest.json; do cat "$path"; done'
    told = operator.fleet.hosts[0].run(["sh", "-c", script, "manifests", folder]).splitlines()
    made = [(said["reason"], said["format"]) for said in map(json.loads, told)]
    assert {("deploy", "directory"), ("rollback", "directory")} == set(made)
    revisions = []
    for door, task, *options in commands(GUIDE, "schema"):
        known = {"--env=staging": "", "--to=0003": f"--to={head()}"}
        told = [word for option in options if (word := known.get(option, option))]
        yes = ["--auto-confirm", "--allow-data-loss"] if task == "db.downgrade" else []
        done = operator.run(task, *told, *yes)
        assert (door, done.status) == ("./inv", 0), done.errors
        revisions.append(live_on_server(operator))
        if task != "db.current":
            assert done.events[-1]["text"].endswith(f"is at {revisions[-1]}")
    assert revisions == ["a001", head(), "a001"]


def live_on_server(operator: Operator) -> str:
    """The revision of the fleet's PostgreSQL."""
    with psycopg.connect(operator.fleet.database_url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else ""


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

        ((_, task, _, version, option),) = commands(GUIDE, "rollback")
        assert (task, version.partition("=")[0]) == ("rollback", "--version")
        undone = back("3.0.0", option)
        assert undone.status == 0, undone.errors
        order = kinds(undone)
        assert order.index("backup") < order.index("downgrade") < order.index("shift")
        assert live() == "a001"
        assert set(operator.versions().values()) == {"3.0.0"}
    assert seen.failures == {}
    assert all(count > 50 for count in seen.requests.values())
    assert set(writer.statuses) == {201} and writer.statuses[201] > 20, writer.statuses
    assert writer.lost() == []


DEPLOY_KILLS = (
    ("step-started", "backup"),
    ("step-started", "migrate"),
    ("step-finished", "migrate"),
)
ROLLBACK_KILLS = (
    ("step-started", "backup"),
    ("step-started", "downgrade"),
    ("step-finished", "downgrade"),
)
CUTS = (("backup", "a001"), ("migrate", "a002"))
"""The step, and how far the schema has come at most."""


@pytest.mark.timeout(900)
def test_killed_or_cut_off_in_a_change_of_the_schema_the_next_run_completes_it(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1], workers=())
    back = ("--auto-confirm", "--with-downgrade")
    operator.change(timeouts={"drain": "10s", "connect": "5s"})
    operator.deploy("1.0.0")
    domain = operator.environment.domain
    host = operator.fleet.host(1)
    writer = Writer(host.address, domain, pause=0.6)
    with writer, traffic(operator.addresses(), domain) as seen:
        for moment, step in DEPLOY_KILLS:
            operator.kill("3.0.0", at(moment, step))
            assert live_on_server(operator) in (head(), "a001")
        operator.deploy("3.0.0")
        assert (live_on_server(operator), operator.unsettled("3.0.0")) == ("a001", [])

        operator.kill("4.0.0", at("step-started", "migrate"))
        operator.deploy("4.0.0")
        assert (live_on_server(operator), operator.unsettled("4.0.0")) == ("a002", [])

        for moment, step in ROLLBACK_KILLS:
            operator.kill("3.0.0", at(moment, step), "rollback", *back)
            assert live_on_server(operator) in ("a002", "a001")
        undone = operator.run("rollback", "--version=3.0.0", *back)
        assert undone.status == 0, undone.errors
        assert (live_on_server(operator), operator.unsettled("3.0.0")) == ("a001", [])
    assert seen.failures == {}, seen.requests
    assert set(writer.statuses) == {201}, writer.statuses
    assert writer.lost() == []

    for step, most in CUTS:
        command = operator.start("deploy", "--version=4.0.0")
        command.suspend(at("step-started", step))
        host.cut()
        outcome = command.resume()
        assert outcome.status in (6, 7), outcome.errors
        assert "host1: " in outcome.errors and "Traceback" not in outcome.errors
        host.heal()
        assert live_on_server(operator) in ("a001", most)
    operator.deploy("4.0.0")
    assert (live_on_server(operator), operator.unsettled("4.0.0")) == ("a002", [])
    assert writer.lost() == []
