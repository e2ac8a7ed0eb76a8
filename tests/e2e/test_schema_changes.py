"""Releases that change a real database under load, and their rollbacks."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from deploy.machine.checkout import ROOT
from tests.support.guide import commands
from tests.support.revisions import head
from tests.support.waiting import eventually

from .operator import Operator, Outcome, waits_for_migration
from .traffic import Writer, traffic

GUIDE = ROOT / "docs" / "migrations.md"


def test_an_expand_and_a_contract_release_lose_no_request(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1, 2], workers=[2])
    operator.change(backups={"parallel_from": 0, "jobs": 2})

    deploy_and_roll_back(operator, lambda: operator.revision)
    # The backup before a change uses the configured format, here two parallel jobs.
    folder = f"{operator.environment.folder}/backups"
    script = 'for path in "$1"/*/manifest.json; do cat "$path"; done'
    manifests = operator.fleet.hosts[0].run(["sh", "-c", script, "manifests", folder]).splitlines()
    made = [(manifest["reason"], manifest["format"]) for manifest in map(json.loads, manifests)]
    assert {("deploy", "directory"), ("rollback", "directory")} == set(made)
    revisions = []
    for program, task, *options in commands(GUIDE, "schema"):
        known = {"--env=staging": "", "--to=0003": f"--to={head()}"}
        given = [word for option in options if (word := known.get(option, option))]
        yes = ["--auto-confirm", "--allow-data-loss"] if task == "db.downgrade" else []
        done = operator.run(task, *given, *yes)
        assert (program, done.status) == ("./inv", 0), done.errors
        revisions.append(operator.revision)
        if task != "db.current":
            assert done.events[-1]["text"].endswith(f"is at {revisions[-1]}")
    assert revisions == ["a001", head(), "a001"]


def test_an_expand_and_a_contract_release_lose_no_request_on_sqlite(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1], workers=[1])
    operator.use_sqlite()
    deploy_and_roll_back(operator, lambda: operator.sqlite_revision)
    roll_back_although_killed(operator)


COUNT = "import sqlite3; print(sqlite3.connect('/data/amani.sqlite3').execute('{}').fetchone()[0])"


def roll_back_although_killed(operator: Operator) -> None:
    """Roll back from 4.0.0 with a deployer that is killed during the downgrade.

    The first time its container is killed too, as by a power failure; the second time it continues.
    """

    def agreements() -> str:
        return operator.run_in_web("python", "-c", COUNT.format("SELECT count(*) FROM escrows"))

    back = ("rollback", "--version=3.0.0", "--auto-confirm", "--with-downgrade")
    copy, there = "/data/amani.sqlite3.before-migration", agreements()
    operator.deploy("4.0.0")
    operator.run_in_web("touch", "/data/hold")
    with traffic(operator.addresses(), operator.environment.domain) as seen:
        command = operator.start(*back)
        eventually(lambda: copy in operator.run_in_web("find", "/data"))
        command.signal(signal.SIGKILL)
        (container,) = operator.migrations()
        operator.fleet.host(1).run(["docker", "kill", container])
        assert command.end().status == -signal.SIGKILL
        assert operator.sqlite_revision == "a002"

        command = operator.start(*back)
        eventually(lambda: operator.migrations() not in ([], [container]))
        command.signal(signal.SIGKILL)
        command.end()
        following = operator.start(*back)
        following.until(waits_for_migration)
        operator.run_in_web("rm", "/data/hold")
        done = following.end()
        assert done.status == 0 and "downgrade" not in done.kinds, done.errors
    assert (operator.sqlite_revision, operator.find_deviations("3.0.0")) == ("a001", [])
    assert operator.migrations() == [] and copy not in operator.run_in_web("find", "/data")
    assert (agreements(), seen.failures) == (there, {})


def deploy_and_roll_back(operator: Operator, live: Callable[[], str]) -> None:
    """Deploy both kinds of schema change, and roll back each; `live` returns the revision."""
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

        adding = operator.deploy("3.0.0").kinds
        assert adding.index("backup") < adding.index("migrate") < adding.index("shift")
        assert live() == "a001"

        # The normal rollback: the schema was only extended, so it stays.
        left = back("1.0.0")
        assert left.status == 0, left.errors
        assert not {"backup", "migrate", "downgrade"} & set(left.kinds)
        assert live() == "a001"

        assert "migrate" not in operator.deploy("3.0.0").kinds
        dropping = operator.deploy("4.0.0").kinds
        assert dropping.index("backup") < dropping.index("shift")
        assert dropping.index("retire") < dropping.index("migrate")
        assert live() == "a002"

        refused = back("3.0.0")
        assert refused.status == 3
        assert "a002 (contract) removed what it uses" in refused.errors
        assert "--with-downgrade" in refused.errors
        assert set(operator.versions().values()) == {"4.0.0"}

        ((_, task, _, version, option),) = commands(GUIDE, "rollback")
        assert (task, version.partition("=")[0]) == ("rollback", "--version")
        undone = back("3.0.0", option)
        assert undone.status == 0, undone.errors
        order = undone.kinds
        assert order.index("backup") < order.index("downgrade") < order.index("shift")
        assert live() == "a001"
        assert set(operator.versions().values()) == {"3.0.0"}
    assert seen.failures == {}
    assert all(count > 50 for count in seen.requests.values())
    assert set(writer.statuses) == {201} and writer.statuses[201] > 20, writer.statuses
    assert writer.lost() == []
