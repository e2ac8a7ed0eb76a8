"""Several revisions in one command that wait, fail or are killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import requests
from sqlalchemy import Engine, inspect, text

from amani_app.adapters.database.migration import DEFAULT_RETRY
from tests.support.postgres import PostgresServer
from tests.support.revisions import ADD, DROP, head, write_revision
from tests.support.service_fixtures import ROOT, Shell
from tests.support.waiting import eventually
from workshop.bench.local_service import API, PASSWORD, LocalService

NOTES = 'op.create_table("notes", sa.Column("id", sa.BigInteger(), primary_key=True))'
LOCK_TIMEOUT = 2.0


@pytest.fixture
def revisions(tmp_path: Path) -> Path:
    """A folder of migrations with a001, which creates a table; tests add more."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=ignored)
    write_revision(tmp_path, "a001", head(), "expand", NOTES, 'op.drop_table("notes")')
    return tmp_path / "migrations"


HALF = """with op.get_context().autocommit_block():
        op.execute("CREATE TABLE half (id integer)")
    op.execute("ALTER TABLE nowhere ADD COLUMN x integer")"""


def test_failed_nontransactional_revision_is_undone_alone(
    sqlite_engine: Engine, revisions: Path
) -> None:
    write_revision(revisions.parent, "a002", "a001", "unsafe", HALF, "pass")
    shell = Shell(DATABASE_URL=sqlite_engine.url.render_as_string(hide_password=False))
    done = shell.run("flask", "db", "upgrade", "-d", str(revisions))
    assert done.returncode == 1 and "no such table: nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    sqlite_engine.dispose()
    tables = inspect(sqlite_engine).get_table_names()
    assert "half" not in tables and "notes" in tables
    with sqlite_engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "a001"
    write_revision(revisions.parent, "a002", "a001", "expand", ADD, DROP)
    shell.ok("flask", "db", "upgrade", "-d", str(revisions))
    # A relative target, over several revisions.
    shell.ok("flask", "db", "downgrade", "-d", str(revisions), "--", "-2")
    assert shell.ok("flask", "db", "current").split()[0] == head()


HALF_DONE = """with op.get_context().autocommit_block():
        op.execute("CREATE TABLE half (id integer)")
    __import__("time").sleep(600)"""


def test_killed_sqlite_migration_is_undone_by_one_process(
    sqlite_engine: Engine, revisions: Path, tmp_path: Path
) -> None:
    file = Path(str(sqlite_engine.url.database))

    def names() -> set[str]:
        with closing(sqlite3.connect(file)) as connection:
            return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}

    def left() -> list[Path]:
        return list(file.parent.glob("*.before-migration*"))

    url = sqlite_engine.url.render_as_string(hide_password=False)
    shell, upgrade = Shell(DATABASE_URL=url), ("flask", "db", "upgrade", "-d", str(revisions))

    def begin() -> subprocess.Popen[bytes]:
        """Start a migration and wait until it has applied a part."""
        write_revision(revisions.parent, "a002", "a001", "unsafe", HALF_DONE, "pass")
        command = shell.start(*upgrade, log=tmp_path / "killed.log")
        eventually(lambda: "half" in names())
        return command

    def kill(command: subprocess.Popen[bytes]) -> None:
        command.kill()
        command.wait()

    first = begin()
    beside = shell.run(*upgrade)
    kill(first)
    assert beside.returncode == 1 and "Traceback" not in beside.stderr
    assert "another migration is running on this database, or a backup" in beside.stderr
    failing = HALF.replace("half", "other")
    write_revision(revisions.parent, "a002", "a001", "unsafe", failing, "pass")
    done = shell.run(*upgrade)
    assert "restored the copy made before the migration; the broken file is" in done.stderr
    assert not {"half", "other"} & names() and left() == []

    kill(begin())
    with sqlite_engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES (7)"))
    write_revision(revisions.parent, "a002", "a001", "unsafe", HALF, "pass")
    done = shell.run(*upgrade)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "rows have changed since, so the copy was not restored" in done.stderr
    assert "half" in names() and len(left()) == 1
    repaired = HALF_DONE.replace("TABLE half", "TABLE IF NOT EXISTS half").replace("600", "0")
    write_revision(revisions.parent, "a002", "a001", "unsafe", repaired, "pass")
    shell.ok(*upgrade)
    with sqlite_engine.connect() as connection:
        assert connection.scalar(text("SELECT id FROM notes")) == 7
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "a002"
    assert left() == []


class Reader(threading.Thread):
    """Repeats one request, and records its time, duration and status."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.answers: list[tuple[float, float, int]] = []
        self.over = threading.Event()
        self._url, self._headers = url, headers

    def run(self) -> None:
        session = requests.Session()
        while not self.over.wait(0.02):
            started = time.monotonic()
            status = session.get(self._url, headers=self._headers, timeout=30).status_code
            self.answers.append((started, time.monotonic() - started, status))

    def between(self, since: float, until: float) -> list[float]:
        """Durations, in seconds, of the requests sent in that time."""
        return [took for at, took, _ in self.answers if since <= at < until]


def p99(seconds: list[float]) -> float:
    """The 99th percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_service_answers_while_a_migration_waits_for_a_lock(
    postgres_server: PostgresServer,
    postgres_url: str,
    revisions: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    write_revision(revisions.parent, "a002", "a001", "expand", ADD, DROP)
    service = LocalService(postgres_server, tmp_path, {"DATABASE_URL": postgres_url})
    log = tmp_path / "migrate.log"

    def migrate() -> subprocess.Popen[bytes]:
        return service.start("flask", "db", "upgrade", "-d", str(revisions), log=log.name)

    def tries() -> int:
        return log.read_text().count("no lock: held by pid")

    try:
        service.must("db", "upgrade")
        service.serve()
        url = f"http://127.0.0.1:{service.port}{API}"
        person = {"email": "ada@example.org", "name": "ada", "password": PASSWORD}
        token = requests.post(f"{url}/auth/signup", json=person, timeout=30).json()["token"]
        users = [Reader(f"{url}/auth/me", {"Authorization": f"Bearer {token}"}) for _ in range(2)]
        others = Reader(f"{url}/health", {})
        for reader in (*users, others):
            reader.start()
        began = time.monotonic()
        eventually(lambda: min(len(r.answers) for r in (*users, others)) > 50)
        with psycopg.connect(postgres_url, application_name="nightly-report") as report:
            report.execute("SELECT count(*) FROM users")
            waiting = time.monotonic()
            killed = migrate()
            eventually(lambda: tries() > 0, 60)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
            with psycopg.connect(postgres_url) as look:
                assert look.execute("SELECT version_num FROM alembic_version").fetchone() == (
                    "a001",
                )
            log.write_text("")
            command = migrate()
            eventually(lambda: tries() > 1, 60)
            assert "application nightly-report, idle in transaction" in log.read_text()
            report.rollback()
            ended = time.monotonic()
        assert command.wait(60) == 0, log.read_text()
        assert 2 <= tries() < DEFAULT_RETRY.tries
        for reader in (*users, others):
            reader.over.set()
            reader.join(60)
    finally:
        service.end()
    assert {status for r in (*users, others) for _, _, status in r.answers} == {200}
    calm = [took for reader in users for took in reader.between(began, waiting)]
    held = [took for reader in users for took in reader.between(waiting, ended)]
    beside = others.between(waiting, ended)
    told = {
        "p99 before, ms": p99(calm),
        "p99 while it waits, of what needs the table, ms": p99(held),
        "worst, ms": max(held) * 1000,
        "p99 while it waits, of what does not, ms": p99(beside),
        "seconds it waited": ended - waiting,
    }
    for name, figure in told.items():
        record_property(name, round(figure, 1))
        print(f"{name}: {figure:.1f}")
    # No statement waits behind an attempt longer than its lock timeout, with some tolerance.
    assert max(held) < min(2.5 * LOCK_TIMEOUT, ended - waiting)
    assert p99(beside) < LOCK_TIMEOUT * 1000
