"""The backup program's work on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from deploy.backups.program import archive, directory, postgres
from deploy.backups.program.pipes import BackupJob, Failure
from deploy.backups.program.postgres import Postgres
from deploy.backups.program.server import ADVISORY_LOCK
from tests.support.waiting import eventually


@pytest.mark.postgres
def test_programs_of_another_major_version_are_refused(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = tmp_path / "pg_dump"
    fake.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.1 (Debian)'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with psycopg.connect(postgres_url) as connection:
        with pytest.raises(Failure, match="backup programs have version 99.1") as caught:
            Postgres(postgres_url).versions(connection, BackupJob())
    assert caught.value.kind == "refused"


@pytest.mark.postgres
def test_no_migration_starts_between_the_lock_and_the_swap(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    live = Postgres(postgres_url)
    told: list[str] = []

    def migrate(*, wait: bool) -> None:
        how = "" if wait else "try_"
        with contextlib.suppress(psycopg.Error), psycopg.connect(postgres_url) as connection:
            query = f"SELECT pg_{how}advisory_lock(%s)::text"
            if connection.execute(query, [ADVISORY_LOCK]).fetchone() != ("false",):
                connection.execute("INSERT INTO told VALUES (1)")
                connection.commit()
                told.append("done")

    def start(*, wait: bool) -> threading.Thread:
        thread = threading.Thread(target=migrate, kwargs={"wait": wait})
        thread.start()
        eventually(lambda: not thread.is_alive() or waits(live))
        return thread

    def let_go(original: Callable[[], None] = Postgres.let_go) -> None:
        original()
        waiting.join(40)
        threads.append(start(wait=False))

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE told (row int)")
        connection.execute(f"CREATE DATABASE {live.name}_restored_1 TEMPLATE template1")
    with live.connect(f"{live.name}_restored_1") as connection:
        connection.execute("CREATE TABLE told (row int)")
    live.hold()
    waiting = start(wait=True)
    threads = [waiting]
    monkeypatch.setattr(Postgres, "let_go", staticmethod(let_go))
    live.swap(f"{live.name}_restored_1", f"{live.name}_before_1")
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM told").fetchone() == (len(told),)
    live.drop(f"{live.name}_before_1")


def waits(server: Postgres) -> bool:
    """Whether a session waits for the migration lock, or to connect."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('advisory', 'object')"
    with server.connect("postgres") as connection:
        return connection.execute(query).fetchone() != (0,)


@pytest.mark.postgres
def test_several_jobs_dump_a_large_database_if_there_is_room(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archive, "FOLDER", str(tmp_path))
    with psycopg.connect(postgres_url) as connection:

        def jobs(size: int, asked: int, needed: int = 1) -> int:
            return Postgres.jobs(connection, size, {"from": 100, "jobs": asked}, needed)

        assert [jobs(99, 3), jobs(100, 3), jobs(100, 1)] == [1, 3, 1]
        for processors, expected in ((1, 1), (2, 1), (3, 3), (16, 4)):
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=processors: range(n))
            assert jobs(100, 0) == expected
        assert jobs(100, 0, 1 << 60) == 1
        with pytest.raises(Failure, match="beside the archive") as caught:
            jobs(100, 3, 1 << 60)
        assert caught.value.kind == "refused"
        monkeypatch.setattr(directory, "capacity", lambda: 10)
        assert jobs(100, 3) == 1


@pytest.mark.postgres
def test_a_locked_table_fails_a_dump_after_the_lock_timeout(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(postgres, "LOCK_WAIT", "100ms")
    request = {"parallel": {"from": 0, "jobs": 1}, "expected": 0}
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE kept")
        with pytest.raises(Failure, match="canceling statement due to lock timeout"):
            with Postgres(postgres_url).dumping(BackupJob(), str(tmp_path), request):
                pass
