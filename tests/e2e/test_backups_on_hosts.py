"""Back up, drill and restore the real service's database on practice hosts."""

from __future__ import annotations

import json

import psycopg

from deploy.operations.maintenance import set_maintenance
from deploy.operations.one_off import run_one_off

from .operator import SILENT, Operator

SEED = "flask amani seed --users 5 --escrows 20 --random 7 --password long-enough-password"


def test_a_restore_recovers_a_database_that_lost_a_table(operator: Operator) -> None:
    def rows() -> int:
        with psycopg.connect(operator.fleet.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM entries").fetchone()
        return int(row[0]) if row else 0

    operator.fleet.up(3, web=[1, 2], workers=[2])
    operator.deploy("1.0.0")
    assert run_one_off(operator.name, SEED.split(), SILENT)[0] == 0
    before = rows()
    assert before > 50

    drilled = operator.run("db.drill")
    assert drilled.status == 0, drilled.errors
    path = f"{operator.environment.folder}/journal.jsonl"
    lines = operator.fleet.hosts[0].run(["cat", path]).split("\n")
    (record,) = [
        found for found in map(json.loads, filter(None, lines)) if found["kind"] == "drill"
    ]
    assert record["outcome"] == "proved" and record["steps"][0]["seconds"] > 0
    assert (record["version"], record["schema"] != "") == ("1.0.0", True)

    replace = ("db.restore", "--replace", f"--confirm={operator.name}")
    refused = operator.run(*replace)
    assert refused.status == 3 and "invoke maintenance.on" in refused.errors
    set_maintenance(operator.name, SILENT, on=True)
    with psycopg.connect(operator.fleet.database_url) as connection:
        connection.execute("DROP TABLE entries CASCADE")
    restored = operator.run(*replace)
    assert restored.status == 0, restored.errors
    set_maintenance(operator.name, SILENT, on=False)
    assert rows() == before
    assert set(operator.versions().values()) == {"1.0.0"}

    listed = operator.run("db.list").events[-1]["rows"]
    assert [(row["why"], row["verified"]) for row in listed] == [
        ("drill", "booted"),
        ("restore", "no"),
    ]
    # No container and no secrets of the scratch database are left on the host.
    running = operator.fleet.hosts[0].run(["docker", "ps", "-a", "--format", "{{.Names}}"]).split()
    assert sorted(running) == sorted(
        f"amani-{operator.name}-{part}" for part in ("proxy", "web-blue")
    )
    volumes = operator.fleet.hosts[0].run(["docker", "volume", "ls", "-q"]).split()
    assert len([name for name in volumes if "-secrets-" in name]) == 1
