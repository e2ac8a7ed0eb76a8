"""Point-in-time recovery of the real service's database, by the commands of docs/backups.md."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from deploy.machine.checkout import ROOT
from deploy.operations.metrics import collect_metrics
from deploy.operations.one_off import run_one_off
from tests.support.waiting import eventually
from workshop.fleet.practice_host import PracticeHost

from .operator import SILENT, Operator
from .trial import Outcome, invoke

SEED = "flask amani seed --users 5 --escrows 20 --random 7 --password long-enough-password"
BLOCK = re.compile(r"<!-- run: (\w+) -->\n *```sh\n(.*?)```", re.DOTALL)
EXAMPLE = "2026-11-23 14:05"


def run_block(operator: Operator, kind: str, moment: float = 0.0) -> list[Outcome]:
    """Run the guide's block of a kind for this environment and this time; return the outcomes."""
    text = (ROOT / "docs/backups.md").read_text()
    (block,) = [body for name, body in BLOCK.findall(text) if name == kind]
    ended = []
    for line in block.strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "./inv"
        words = [
            word.replace("staging", operator.name).replace(EXAMPLE, format_time(moment))
            for word in words
        ]
        ended.append(invoke(*words))
        assert ended[-1].status == 0, f"{line}: {ended[-1].text}"
    return ended


def format_time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S.%f}"


class Writer(threading.Thread):
    """Writes as fast as possible, and records each acknowledged row and its time."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._ended = url, threading.Event()
        self.acknowledged: list[tuple[int, float]] = []

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ended.is_set():
                row = connection.execute(
                    "INSERT INTO proof (sent) VALUES (%s) RETURNING id", [time.time()]
                ).fetchone()
                assert row is not None
                self.acknowledged.append((int(row[0]), time.time()))

    def end(self) -> None:
        self._ended.set()
        self.join(30)
        assert not self.is_alive()


@contextlib.contextmanager
def writing(url: str) -> Iterator[list[Writer]]:
    writers = [Writer(url) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.end()


@contextlib.contextmanager
def unmounted(host: PracticeHost, folder: str) -> Iterator[None]:
    """Rename the folder in the block, as if its disk were not mounted."""
    host.run(["mv", folder, f"{folder}.away"])
    try:
        yield
    finally:
        host.run(["mv", "-T", f"{folder}.away", folder])


def proofs(url: str) -> dict[int, float]:
    """The time at which each existing row was sent, by its id."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT id, sent FROM proof").fetchall())


def timeline(url: str) -> int:
    """The id of the timeline that the server writes."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT timeline_id FROM pg_control_checkpoint()").fetchone()
    return int(row[0]) if row else 0


def require_as_of(moment: float, found: dict[int, float], writers: list[Writer]) -> int:
    """Require every write acknowledged before the moment, and none sent after it."""
    before = {id for writer in writers for id, at in writer.acknowledged if at <= moment}
    assert before and before <= found.keys()
    assert [id for id, sent in found.items() if sent > moment] == []
    return len(before)


@pytest.mark.timeout(600)
def test_recovery_restores_the_database_to_the_time_before_a_mistake(operator: Operator) -> None:
    fleet = operator.fleet
    fleet.up(3, web=[1], workers=[1], database=True)
    database, keeper = fleet.database_host, fleet.host(3)
    url = fleet.database_url
    operator.deploy("1.0.0")
    assert run_one_off(operator.name, SEED.split(), SILENT)[0] == 0
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE proof (id bigserial PRIMARY KEY, sent float8)")

    # Without a confirmation nothing is restarted or changed.
    before = operator.run("db.pitr.status")
    assert before.status == 3 and "is not archived" in before.errors
    unasked = operator.run("db.pitr.setup")
    assert unasked.status == 2 and "--restart confirms without a question" in unasked.errors
    assert (
        database.run(["sh", "-c", "ls /etc/pgbackrest 2>/dev/null || echo none"]).strip() == "none"
    )

    run_block(operator, "setup")
    first = time.time()
    again = operator.run("db.pitr.setup", "--restart")
    assert again.status == 0 and "nothing to do" in again.events[-1]["text"]
    secrets = database.run(
        ["stat", "-c", "%a %U %G", f"/etc/pgbackrest/amani-{operator.name}.conf"]
    )
    assert secrets.split() == ["640", "root", "postgres"]
    for to, status, why in (
        (format_time(first - 3600), 3, "before the end of the first base backup"),
        (format_time(first + 3600), 3, "is in the future"),
        ("14:05", 2, "is not a date and a time"),
    ):
        refused = operator.run("db.pitr.restore", f"--to={to}")
        assert refused.status == status and why in refused.errors, refused.errors

    # At full write speed, a missing repository is reported, and no write is lost.
    as_postgres = ["runuser", "-u", "postgres", "--", "psql", "-Atc"]
    with writing(url) as writers:
        with unmounted(keeper, "/var/lib/amani/pgbackrest"):
            eventually(lambda: all(writer.acknowledged for writer in writers))
            database.run([*as_postgres, "SELECT pg_switch_wal()"])
            failed = "SELECT failed_count > 0 FROM pg_stat_archiver"
            eventually(lambda: database.run([*as_postgres, failed]).strip() == "t", 90)
            moment = time.time()
            failing = operator.run("db.pitr.status")
            assert failing.status == 3 and "archiving has failed since" in failing.errors
            assert "the repository: missing stanza path" in failing.errors
            assert re.search(
                r"amani_pitr_failing\{.*\} 1\n", collect_metrics(operator.name, SILENT)
            )
            lost = operator.run("db.pitr.restore", f"--to={format_time(moment)}")
            assert lost.status == 3 and "nothing can be restored" in lost.errors
            assert list(clusters(operator)) == ["main"]
        enough = {writer: len(writer.acknowledged) + 100 for writer in writers}
        eventually(lambda: all(len(w.acknowledged) > count for w, count in enough.items()))
    later = time.time()
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE entries CASCADE")
        connection.execute("DELETE FROM proof")

    started = time.monotonic()
    typed = run_block(operator, "replace", moment)
    seconds = time.monotonic() - started
    count = require_as_of(moment, proofs(url), writers)
    assert set(operator.versions().values()) == {"1.0.0"}
    assert clusters(operator)["main"] != 5432
    record = journal(operator)[-1]
    assert (record["outcome"], record["version"]) == ("replaced", "1.0.0")
    assert record["steps"][0]["before"] == "17/main"
    healthy = operator.run("db.pitr.status")
    assert healthy.status == 0, healthy.errors

    # Now the machine is lost. The writes after that moment are on the abandoned timeline, and are
    # restored from the repository to a bare machine.
    lose(database, list(clusters(operator)))
    assert invoke("maintenance.on", f"--env={operator.name}").status == 0
    here = (f"--to={format_time(later)}", "--replace", f"--confirm={operator.name}")
    outcome = operator.run("db.pitr.restore", *here)
    assert outcome.status == 0, outcome.errors
    assert invoke("maintenance.off", f"--env={operator.name}").status == 0
    all_of_it = proofs(url)
    require_as_of(later, all_of_it, writers)
    assert len(all_of_it) == sum(len(writer.acknowledged) for writer in writers) > count
    assert timeline(url) == 3, "the repository contains timeline 2"

    output = run_block(operator, "beside", moment)[0].text
    found = re.search(r"restored into \S+, port (\d+)", output)
    assert found, output
    beside = proofs(url.replace(":5432/", f":{found[1]}/"))
    assert require_as_of(moment, beside, writers) == count
    assert proofs(url) == all_of_it  # the live one is unchanged

    run_block(operator, "daily")
    run_block(operator, "tidy")
    assert [port for port in clusters(operator).values()] == [5432]
    details = typed[1].text.partition("last transaction")[2].partition("replaced cluster")[0]
    print(
        f"\n{count:,} writes up to the moment; the guide's commands took {seconds:.1f} s: {details}"
    )


def lose(database: PracticeHost, names: list[str]) -> None:
    """Reset the host to a fresh installation: an empty cluster, and no pgBackRest."""
    for name in names:
        database.run(["pg_dropcluster", "--stop", "17", name])
        database.run(["rm", "-rf", f"/etc/postgresql/17/{name}"])  # pg_dropcluster keeps some
    database.run(
        ["sh", "-ec", "rm -r /etc/pgbackrest; apt-get purge -qq pgbackrest >/dev/null 2>&1"]
    )
    database.run(["pg_createcluster", "17", "main"])
    database.run(["pg_conftool", "17", "main", "set", "listen_addresses", "*"])
    hba = "echo 'host all all all scram-sha-256' >>/etc/postgresql/17/main/pg_hba.conf"
    database.run(["sh", "-ec", hba])
    database.run(["pg_ctlcluster", "17", "main", "start"])


def clusters(operator: Operator) -> dict[str, int]:
    """The port of each cluster on the database's host, by its name."""
    listed = json.loads(operator.fleet.database_host.run(["pg_lsclusters", "--json"]))
    return {found["cluster"]: int(found["port"]) for found in listed}


def journal(operator: Operator) -> list[dict[str, Any]]:
    """The journal's records of point-in-time recoveries."""
    path = f"{operator.environment.folder}/journal.jsonl"
    lines = operator.fleet.hosts[0].run(["cat", path]).split("\n")
    return [record for record in map(json.loads, filter(None, lines)) if record["kind"] == "pitr"]
