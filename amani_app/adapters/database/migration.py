"""Connections of migrations: one migration at a time, short lock timeouts, and retries."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from amani_app.adapters.database.engine import tune_sqlite

LOCK_TIMEOUT = "2s"
"""Time that DDL waits for a table lock; queries that come later wait behind it."""
STATEMENT_TIMEOUT = "15min"
LONG_LOCK_TIMEOUT = "10min"
"""Time that a concurrent index build waits for older transactions; it blocks no statement."""
SERVER_KEEPALIVE = {
    "tcp_keepalives_idle": "3s",
    "tcp_keepalives_interval": "1s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "6s",
    "client_connection_check_interval": "2s",
}
"""The server ends the session of an unreachable migration after 6 s, of a killed one after 2 s.

Such a session may hold a table lock; together with `LOCK_TIMEOUT` this is shorter than a request
waits. By default the server needs two hours.
"""
CLIENT_KEEPALIVE = {
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}
"""The same limits for the client, which would otherwise wait for a lost response."""
ADVISORY_LOCK = 0x616D616E69
"""The number of the lock that migration, backup and restore share ("amani")."""
LOCK_NOT_AVAILABLE, QUERY_CANCELED = "55P03", "57014"

_LONG = re.compile(
    r"^\s*(?:(?:CREATE(?: UNIQUE)?|DROP) INDEX CONCURRENTLY"
    r"|REINDEX\b.*\bCONCURRENTLY|ALTER TABLE .* VALIDATE CONSTRAINT)\b",
    re.IGNORECASE | re.DOTALL,
)
_INDEX = re.compile(
    r'^\s*CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?:IF NOT EXISTS )?("[^"]+"|\w+)', re.IGNORECASE
)
_BLOCKERS = text(
    "SELECT 'pid ' || pid || ', application ' || coalesce(nullif(application_name, ''), '?')"
    " || ', ' || coalesce(state, '?') || ', query since '"
    " || to_char(query_start, 'YYYY-MM-DD HH24:MI:SS TZ')"
    " FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid)) ORDER BY query_start"
)
_HOLDER = text(
    "SELECT 'pid ' || pid || ', application ' || coalesce(nullif(application_name, ''), '?')"
    " FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND pg_locks.database = datid"
    " AND classid = :high AND objid = :low AND objsubid = 1"
)
_LEFT_OVER = (
    text(
        "SELECT 'invalid index ' || indexrelid::regclass FROM pg_index"
        " WHERE NOT indisvalid AND indrelid::regclass::text NOT LIKE 'pg_%' ORDER BY 1"
    ),
    text(
        "SELECT 'constraint ' || conname || ' of ' || conrelid::regclass || ' not validated'"
        " FROM pg_constraint WHERE NOT convalidated ORDER BY 1"
    ),
)
_RUNNING = "another migration is running on this database, or a backup or a restore of it"
log = logging.getLogger("alembic.runtime.migration")


class MigrationRunning(CommandError):
    """Another migration, a backup or a restore is running on this database."""


class MigrationFailed(CommandError):
    """A revision could not be applied; the message has the reason and the resulting state."""


@dataclass(frozen=True)
class RetryPolicy:
    """The number of tries of a blocked migration, and the delays between them in seconds."""

    tries: int = 10
    first: float = 1.0
    most: float = 30.0

    def rest(self, tried: int) -> float:
        """Seconds until the next try: exponential with jitter, at most `most`."""
        return min(self.most, self.first * 2.0 ** (tried - 1)) * random.uniform(
            0.5, 1
        )  # nosec B311


DEFAULT_RETRY = RetryPolicy()


@contextmanager
def migration_engine(engine: Engine, direct: str = "") -> Iterator[Engine]:
    """An engine for the database of `engine`, with the timeouts of a migration.

    `direct` is the URL past a pooler, which is needed because the migration lock belongs to a
    session. The timeouts are connection options: after a plain SET, Alembic would find a begun
    transaction, commit nothing and exit 0. On SQLite foreign keys are off, because a change of a
    table replaces the table.
    """
    if engine.dialect.name == "postgresql":
        options = f"-c lock_timeout={LOCK_TIMEOUT} -c statement_timeout={STATEMENT_TIMEOUT}"
        own = create_engine(
            direct or engine.url,
            poolclass=NullPool,
            connect_args={
                "application_name": "amani-migrate",
                "options": options,
                **CLIENT_KEEPALIVE,
            },
        )
        _set_keepalive(own)
        _lift_timeouts(own)
    else:
        own = create_engine(engine.url, poolclass=NullPool, connect_args={"timeout": 30})
        tune_sqlite(own, foreign_keys=False)
    try:
        yield own
    finally:
        own.dispose()


def _set_keepalive(engine: Engine) -> None:
    """Let the server end the session of a migration that was killed or is unreachable.

    Otherwise the statement runs to its end and keeps its table lock, and the session keeps the
    migration lock until TCP times out.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.autocommit = True  # so that Alembic finds no begun transaction
        for name, value in SERVER_KEEPALIVE.items():
            # Some servers and operating systems do not support it.
            with suppress(engine.dialect.loaded_dbapi.Error):
                connection.execute(f"SET {name} = '{value}'")
        connection.autocommit = False


def _lift_timeouts(engine: Engine) -> None:
    """Lift the timeouts of long statements that block no other; drop invalid indexes first.

    Runs on the driver's cursor, so that Alembic's transaction is not affected.
    """

    @event.listens_for(engine, "before_cursor_execute")
    def _before(_c: Connection, cursor: Any, statement: str, *_more: Any) -> None:
        if not _LONG.match(statement):
            return
        cursor.execute("SET statement_timeout = 0")
        if "CONCURRENTLY" not in statement.upper():
            return
        cursor.execute(f"SET lock_timeout = '{LONG_LOCK_TIMEOUT}'")
        if named := _INDEX.match(statement):
            found = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid"
            if cursor.execute(found, [named[1]]).fetchone():
                log.warning("removing the invalid index %s of an earlier run", named[1])
                cursor.execute(f"DROP INDEX CONCURRENTLY {named[1]}")

    @event.listens_for(engine, "after_cursor_execute")
    def _after(_c: Connection, cursor: Any, statement: str, *_more: Any) -> None:
        if _LONG.match(statement):
            cursor.execute("RESET statement_timeout")
            cursor.execute("RESET lock_timeout")


@contextmanager
def exclusive(engine: Engine) -> Iterator[None]:
    """Hold the migration lock. Raises `MigrationRunning` if another process holds it.

    The lock is on a connection of its own, so that a commit of a migration does not release it. On
    SQLite the directory of the file is locked, because the file may be replaced.
    """
    if engine.dialect.name != "postgresql":
        with _folder_locked(engine.url.database or ""):
            yield
        return
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": ADVISORY_LOCK}):
            number = {"high": ADVISORY_LOCK >> 32, "low": ADVISORY_LOCK & 0xFFFFFFFF}
            holder = connection.scalar(_HOLDER, number) or "a session that has ended"
            raise MigrationRunning(f"{_RUNNING} ({holder}); wait for it")
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": ADVISORY_LOCK})


@contextmanager
def _folder_locked(file: str) -> Iterator[None]:
    folder = Path(file).parent
    if file in ("", ":memory:") or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MigrationRunning(f"{_RUNNING}; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def persist(
    engine: Engine, move: Callable[[Connection], None], patience: RetryPolicy = DEFAULT_RETRY
) -> None:
    """Call `move` with a connection; repeat it after a lock timeout, as `patience` allows.

    Raises `MigrationFailed` with the sessions that held the lock, or with the server's reason for
    any other error.
    """
    for tried in range(1, patience.tries + 1):
        blockers: list[str] = []
        try:
            with engine.connect() as connection, _watching(engine, connection, blockers):
                move(connection)
        except DBAPIError as error:
            state, reason = _reason(error)
            if state != LOCK_NOT_AVAILABLE:
                raise MigrationFailed(_explain(state, reason)) from None
            held = "; ".join(blockers) or "a session that has ended"
            if tried == patience.tries:
                raise MigrationFailed(
                    f"no lock within {LOCK_TIMEOUT}, {tried} times: it was held by {held}. The "
                    "revision was not applied; end that transaction, or try at a quieter time"
                ) from None
            rest = patience.rest(tried)
            log.warning("no lock: held by %s; trying again in %.1f s", held, rest)
            time.sleep(rest)
        else:
            return


def _reason(error: DBAPIError) -> tuple[str, str]:
    """SQLSTATE and one line, without values, which may be personal data."""
    original: Any = error.orig
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    return getattr(original, "sqlstate", None) or "", primary or str(original).partition("\n")[0]


def _explain(state: str, reason: str) -> str:
    if state == QUERY_CANCELED:
        return f"a statement was stopped ({reason}); its revision was rolled back"
    return f"the database refused a statement ({reason}); its revision was rolled back"


@contextmanager
def _watching(engine: Engine, connection: Connection, blockers: list[str]) -> Iterator[None]:
    """Keep in `blockers` the sessions that last blocked `connection`."""
    if engine.dialect.name != "postgresql":
        yield
        return
    pid = cast(Any, connection.connection.dbapi_connection).info.backend_pid
    done = threading.Event()

    def watch() -> None:
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as own:
            while not done.wait(0.1):
                if found := list(own.scalars(_BLOCKERS, {"pid": pid})):
                    blockers[:] = found

    thread = threading.Thread(target=watch, name="lock-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def find_left_over(engine: Engine) -> list[str]:
    """Invalid indexes and constraints that are not validated; on PostgreSQL only."""
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        return [line for query in _LEFT_OVER for line in connection.scalars(query)]
