from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from amani_app.adapters.database.engine import tune_sqlite
from amani_app.adapters.database.migration import (
    MigrationFailed,
    MigrationRunning,
    RetryPolicy,
    exclusive,
    find_left_over,
    migration_engine,
    persist,
)
from amani_app.adapters.database.revisions import DatabaseSchema, read_revisions
from amani_app.adapters.database.safety_copy import safety_copy
from amani_app.ports.schema import DatabaseUnavailable
from tests.support.database_schema import read_schema
from tests.support.service_fixtures import ROOT, Shell
from tests.support.waiting import eventually


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    if engine.dialect.name == "sqlite":
        tune_sqlite(engine)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_head_matches_alembic() -> None:
    head, insufficient = read_revisions()
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert [head] == script.get_heads()
    assert insufficient == {revision.revision for revision in script.walk_revisions()} - {head}


@pytest.mark.parametrize("downs", [[], [None, None], [None, "'a'", "'a'"]])
def test_number_of_heads_must_be_one(tmp_path: Path, downs: list[str | None]) -> None:
    (tmp_path / "versions").mkdir()
    for name, down in zip("abc", downs, strict=False):
        text_ = f"revision: str = '{name}'\ndown_revision = {down}\n"
        (tmp_path / "versions" / f"{name}.py").write_text(text_)
    with pytest.raises(ValueError, match="expected one head"):
        read_revisions(tmp_path)


def test_merge_revision_has_both_parents(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for name, down in (("a", None), ("b", "a"), ("c", "a"), ("d", ("b", "c"))):
        text_ = f"revision = '{name}'\ndown_revision = {down!r}\n"
        (tmp_path / "versions" / f"{name}.py").write_text(text_)
    assert read_revisions(tmp_path) == ("d", frozenset("abc"))


def test_trailing_contract_revisions_are_not_required(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    line = (("a", None, "expand"), ("b", "a", "contract"), ("c", "b", "expand"))
    for name, down, kind in (*line, ("d", "c", "contract"), ("e", "d", "contract")):
        text_ = f'"""Words.\n\nClass: {kind}\n"""\nrevision = {name!r}\ndown_revision = {down!r}\n'
        (tmp_path / "versions" / f"{name}.py").write_text(text_)
    assert read_revisions(tmp_path) == ("e", frozenset("ab"))


@pytest.mark.parametrize("program", ["flask db", "alembic"])
def test_upgrade_downgrade_upgrade_restores_the_schema(
    shell: Shell, engine: Engine, program: str
) -> None:
    words = program.split()
    shell.ok(*words, "upgrade", "head")
    above = read_schema(engine)
    assert "worker_heartbeats" in above
    assert read_revisions()[0] in shell.ok(*words, "current")
    for _ in {read_revisions()[0], *read_revisions()[1]}:
        shell.ok(*words, "downgrade", *(["-1"] if program == "alembic" else []))
    assert tables(engine) == {"alembic_version"}
    shell.ok(*words, "upgrade", "head")
    assert read_schema(engine) == above


@pytest.mark.parametrize("program", ["flask db", "alembic"])
def test_models_match_migrations(shell: Shell, program: str) -> None:
    shell.ok("flask", "db", "upgrade")
    shell.ok(*program.split(), "check")


def test_revision_is_printed_only_on_stdout(shell: Shell) -> None:
    shell.ok("flask", "db", "upgrade")
    assert shell.ok("flask", "db", "current") == f"{read_revisions()[0]} (head)"
    assert shell.ok("flask", "amani", "schema-head") == read_revisions()[0]


def test_sql_is_generated_without_a_database(shell: Shell, engine: Engine) -> None:
    assert "CREATE TABLE worker_heartbeats" in shell.ok("flask", "db", "upgrade", "--sql")
    assert tables(engine) == set()


def test_practice_fault_leaves_the_database_unchanged(shell: Shell, engine: Engine) -> None:
    shell.environ.update(PRACTICE="true", PRACTICE_FAULT="migration")
    done = shell.run("flask", "db", "upgrade")
    assert done.returncode != 0
    assert "practice fault: migration" in done.stderr
    assert tables(engine) == set()


def test_failing_migration_leaves_no_tables(engine: Engine) -> None:
    with migration_engine(engine) as own:
        with pytest.raises(ZeroDivisionError), own.begin() as connection:
            connection.execute(text("CREATE TABLE half (id integer)"))
            raise ZeroDivisionError
    assert tables(engine) == set()


def test_live_revision_is_none_then_head_then_any_value(shell: Shell, engine: Engine) -> None:
    source = DatabaseSchema(engine)
    assert source.live() is None
    shell.ok("flask", "db", "upgrade")
    assert source.live() == source.expected
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'zzzz'"))
    assert source.live() == "zzzz"


def test_revision_is_read_with_one_statement(shell: Shell, engine: Engine) -> None:
    shell.ok("flask", "db", "upgrade")
    source, seen = DatabaseSchema(engine), []
    event.listen(engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    source.live()
    assert seen == ["SELECT version_num FROM alembic_version"]


@pytest.mark.postgres
def test_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    engine = create_engine(f"postgresql+psycopg://amani@/none?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable):
        DatabaseSchema(engine).live()


@pytest.mark.postgres
def test_migrations_do_not_run_concurrently(postgres_url: str) -> None:
    first, second = create_engine(postgres_url), create_engine(postgres_url)
    with exclusive(first):
        with pytest.raises(MigrationRunning, match="another migration"), exclusive(second):
            pass
        shell = Shell(DATABASE_URL=postgres_url)
        done = shell.run("flask", "db", "upgrade")
        assert done.returncode == 1
        assert "another migration is running" in done.stderr
        assert "Traceback" not in done.stderr
    with exclusive(second):
        pass
    first.dispose()
    second.dispose()


@pytest.mark.postgres
def test_migration_has_a_lock_timeout(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with migration_engine(engine) as own, own.connect() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "2s"
        assert connection.scalar(text("SHOW statement_timeout")) == "15min"
    engine.dispose()


@pytest.mark.postgres
def test_server_ends_statements_of_a_disconnected_migrator(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    query = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(9%'")

    def at_work() -> int:
        with engine.connect() as look:
            return int(look.scalar(query) or 0)

    def wait(connection: Connection) -> None:
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT pg_sleep(999)"))

    with migration_engine(engine) as own, own.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        thread = threading.Thread(target=wait, args=[connection])
        thread.start()
        eventually(lambda: at_work() == 1)
        with socket.socket(fileno=os.dup(driver.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
        thread.join(40)
        eventually(lambda: at_work() == 0)
        connection.invalidate()
    engine.dispose()


HASTY = RetryPolicy(tries=2, first=0.01)


def add_column(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text("ALTER TABLE people ADD COLUMN name text"))


@pytest.fixture
def held(postgres_url: str) -> Iterator[tuple[Engine, Connection]]:
    """The engine of a migration, and a connection that has locked the only table."""
    url = postgres_url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE people (id integer)"))
    reader = create_engine(url, connect_args={"application_name": "nightly-report"})
    with migration_engine(engine) as own, reader.connect() as connection:
        connection.execute(text("SELECT * FROM people"))
        yield own, connection
    engine.dispose()
    reader.dispose()


@pytest.mark.postgres
def test_lock_timeout_names_the_holder_and_applies_nothing(
    held: tuple[Engine, Connection],
) -> None:
    engine, reader = held
    pid = reader.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(MigrationFailed, match="2 times.*was not applied") as refused:
        persist(engine, add_column, HASTY)
    told = str(refused.value)
    assert f"pid {pid}, application nightly-report, idle in transaction, query since 2" in told
    reader.rollback()
    assert [c["name"] for c in inspect(engine).get_columns("people")] == ["id"]


@pytest.mark.postgres
def test_migration_retries_after_lock_timeout(held: tuple[Engine, Connection]) -> None:
    engine, reader = held
    tries = []

    def move(connection: Connection) -> None:
        tries.append(connection)
        if len(tries) == 2:
            reader.rollback()
        add_column(connection)

    persist(engine, move, HASTY)
    assert len(tries) == 2
    assert [c["name"] for c in inspect(engine).get_columns("people")] == ["id", "name"]


@pytest.mark.postgres
def test_invalid_index_is_listed_and_rebuilt_by_the_next_run(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE people (id integer)"))
        connection.execute(text("INSERT INTO people VALUES (1), (1)"))

    def index(connection: Connection) -> None:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        made = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_people_id ON people (id)"
        alone.execute(text(made))
        assert alone.scalar(text("SHOW statement_timeout")) == "15min"

    with migration_engine(engine) as own:
        with pytest.raises(MigrationFailed, match="could not create unique index"):
            persist(own, index)
        assert find_left_over(own) == ["invalid index uq_people_id"]
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM people"))
        persist(own, index)
        assert find_left_over(own) == []
    engine.dispose()


@pytest.mark.postgres
def test_revision_is_readable_during_a_migration(postgres_url: str) -> None:
    engine, shell = create_engine(postgres_url), Shell(DATABASE_URL=postgres_url)
    with exclusive(engine):
        assert shell.run("flask", "db", "current").returncode == 0
    engine.dispose()


def test_rejected_statement_is_reported_in_one_line(shell: Shell, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE worker_heartbeats (name text)"))
    done = shell.run("flask", "db", "upgrade")
    assert done.returncode == 1
    assert "already exists); its revision was rolled back" in done.stderr
    assert "Traceback" not in done.stderr
    assert "escrows" not in tables(engine)


def files(engine: Engine) -> list[str]:
    folder = Path(str(engine.url.database)).parent
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(("-wal", "-shm")))


def test_failed_sqlite_revision_is_undone(sqlite_engine: Engine) -> None:
    before = tables(sqlite_engine)
    with pytest.raises(ZeroDivisionError), safety_copy(sqlite_engine):
        with sqlite_engine.begin() as connection:
            connection.execute(text("CREATE TABLE half (id integer)"))
        raise ZeroDivisionError
    sqlite_engine.dispose()
    assert tables(sqlite_engine) == before
    assert [".broken-" in name for name in files(sqlite_engine)].count(True) == 1


def test_rows_written_during_a_rolled_back_revision_are_kept(sqlite_engine: Engine) -> None:
    row = "INSERT INTO worker_heartbeats VALUES ('w', '1.0.0', '2026-11-24 00:00:00')"
    there = files(sqlite_engine)
    with pytest.raises(ZeroDivisionError), safety_copy(sqlite_engine):
        with sqlite_engine.begin() as connection:
            connection.execute(text(row))
        raise ZeroDivisionError
    with sqlite_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM worker_heartbeats")) == 1
    assert files(sqlite_engine) == there
