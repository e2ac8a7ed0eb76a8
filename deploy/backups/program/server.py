"""A PostgreSQL server: its lock, the measures of a database, and databases to drop and rename."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deploy.backups.program.pipes import BackupJob, Failure

ADVISORY_LOCK = 0x616D616E69
"""The advisory lock that a migration holds, too ("amani" in ASCII)."""
_CLIENT = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
_SERVER = """
SELECT set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '4', false),
       set_config('tcp_user_timeout', '30000', false)
"""
"""Either side closes the connection after 30 s without an answer from the other. By default a host
without power would keep the lock for two hours."""
Measures = dict[str, dict[str, Any]]

_TABLES = """
SELECT n.nspname, c.relname, array_agg(a.attname ORDER BY a.attnum)
       FILTER (WHERE a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype,
                                    'numeric'::regtype))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
GROUP BY 1, 2 ORDER BY 1, 2
"""


class PostgresAdmin:
    """Administers a server and the database that a URL names: lock, measure, drop, rename."""

    _held: ClassVar[contextlib.ExitStack | None] = None
    """The connection that keeps the lock for this program, across its jobs."""
    _holder: ClassVar[int] = 0
    """The process id of its session."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        try:
            self._parts = conninfo_to_dict(f"{scheme.partition('+')[0]}://{rest}")
        except psycopg.ProgrammingError:
            raise Failure(
                "the database's URL is not a valid PostgreSQL URL", kind="usage"
            ) from None
        if any("\n" in str(value) for value in self._parts.values()):
            raise Failure("the database's URL contains a line break", kind="usage")
        self.name = str(self._parts.get("dbname") or self._parts.get("user") or "")

    # -- connections -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _service(self) -> Iterator[Mapping[str, str]]:
        """The environment with which libpq's programs find the server: arguments are public."""
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:  # 0600, in memory
            lines = [f"{key}={value}" for key, value in self._parts.items() if value is not None]
            file.write("\n".join(["[amani]", *lines, ""]))
            file.flush()
            yield {"PGSERVICEFILE": file.name, "PGAPPNAME": "amani-backup"}

    @contextlib.contextmanager
    def connect(self, database: str = "") -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit mode, without time limits."""
        parts = {**_CLIENT, **self._parts, "application_name": "amani-backup"}
        if database:
            parts["dbname"] = database
        try:
            with psycopg.connect(make_conninfo("", **parts), autocommit=True) as connection:
                connection.execute("SET statement_timeout = 0")
                connection.execute("SET idle_in_transaction_session_timeout = 0")
                # PostgreSQL before 12, and some systems, do not support these settings.
                with contextlib.suppress(psycopg.Error):
                    connection.execute(_SERVER)
                yield connection
        except psycopg.OperationalError as error:
            raise Failure(
                f"the database: {str(error).strip()}",
                hint="check that the server runs, and that the secret with its URL is correct",
            ) from None
        except psycopg.Error as error:
            raise Failure(f"the database: {str(error).strip()}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection with the lock that migrations, backups and restores take.

        Raises `Failure` if another session has it.
        """
        with self.connect() as connection:
            if PostgresAdmin._held is None:
                self._lock(connection)
            yield connection

    def _lock(self, connection: psycopg.Connection[Any]) -> None:
        found = connection.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
        if found.fetchone() != (True,):
            raise Failure(
                "a migration, a backup or a restore is under way on this database",
                kind="locked",
                hint="wait until it has ended, and run this command again",
            )

    def hold(self) -> None:
        """Take the lock and keep it until a swap or the end of the program.

        A live database that is missing or accepts no connections is not locked: it can neither be
        migrated nor backed up, and a restore is meant for this case.
        """
        if PostgresAdmin._held is not None or not self.exists():
            return
        with contextlib.ExitStack() as stack:
            try:
                PostgresAdmin._holder = _pid(stack.enter_context(self.locked()))
            except Failure as failure:
                if failure.kind == "locked":
                    raise
                return
            PostgresAdmin._held = stack.pop_all()

    @staticmethod
    def let_go() -> None:
        """Release the lock that `hold` took."""
        if (held := PostgresAdmin._held) is not None:
            PostgresAdmin._held = None
            held.close()

    # -- measures --------------------------------------------------------------------------------

    def versions(self, connection: psycopg.Connection[Any], job: BackupJob) -> dict[str, str]:
        """Versions of server and programs. Raises `Failure` if their major versions differ."""
        output = bytearray()
        job.run(["pg_dump", "--version"], sink=output.extend)
        client = output.decode().split()[2]
        server = str(connection.info.parameter_status("server_version") or "").split()[0]
        if client.split(".")[0] != server.split(".")[0]:
            raise Failure(
                f"the server is PostgreSQL {server}, but the backup programs have version {client}",
                kind="refused",
                hint="pg_dump must have the server's major version: upgrade the server, or the"
                " deployer if the server is newer",
            )
        return {"engine": "postgresql", "server": server, "client": client}

    def size(self, connection: psycopg.Connection[Any]) -> int:
        """The size of the database on the server's disk, in bytes."""
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0

    def measure(self, connection: psycopg.Connection[Any]) -> Measures:
        """For each table its `rows`, and the `sums` of its integer and numeric columns."""
        found: Measures = {}
        for schema, table, columns in connection.execute(_TABLES).fetchall():
            sums = [sql.SQL("sum({})").format(sql.Identifier(name)) for name in columns or ()]
            query = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join([sql.SQL("count(*)"), *sums]), sql.Identifier(schema, table)
            )
            row: Sequence[Any] = connection.execute(query).fetchone() or ()
            found[f"{schema}.{table}"] = {
                "rows": row[0],
                "sums": {name: str(value or 0) for name, value in zip(columns or (), row[1:])},
            }
        return found

    def revision(self, connection: psycopg.Connection[Any]) -> str:
        """The revision in `alembic_version`; empty without that table."""
        table = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        if table is None or table[0] is None:
            return ""
        rows = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1").fetchall()
        return " ".join(str(row[0]) for row in rows)

    def look(self, database: str = "") -> dict[str, Any]:
        """The `tables` and the `revision` of a database, in one snapshot."""
        with self.connect(database) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return {"tables": self.measure(connection), "revision": self.revision(connection)}

    def query(self, queries: Sequence[str]) -> list[dict[str, Any]]:
        """For each query its one `value`, or the server's `error`."""
        found: list[dict[str, Any]] = []
        with self.connect() as connection:
            for query in queries:
                try:
                    row = connection.execute(query.encode()).fetchone()
                    found.append({"value": row[0] if row else None, "error": ""})
                except psycopg.Error as error:
                    found.append({"value": None, "error": str(error).strip().splitlines()[0]})
        return found

    # -- databases -------------------------------------------------------------------------------

    def drop(self, name: str) -> None:
        """Drop a database, and end its sessions."""
        with self.connect("postgres") as connection:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(sql.Identifier(name)))

    def replaced(self) -> list[str]:
        """The names of the databases that restores created or replaced."""
        return self._named("restored|restoring|before")

    def _named(self, kinds: str) -> list[str]:
        with self.connect("postgres") as connection:
            query = "SELECT datname FROM pg_database WHERE datname ~ %s ORDER BY 1"
            rows = connection.execute(query, [f"^{self.name}_({kinds})_[0-9a-z]+$"])
            return [str(row[0]) for row in rows.fetchall()]

    def exists(self) -> bool:
        with self.connect("postgres") as connection:
            query = "SELECT FROM pg_database WHERE datname = %s"
            return connection.execute(query, [self.name]).fetchone() is not None

    def swap(self, name: str, old: str) -> None:
        """Rename the live database to `old` and `name` to its name, in one transaction."""
        exists = self.exists()
        for attempt in range(10):
            try:
                with self.connect("postgres") as connection, connection.transaction():
                    if exists:
                        self._put_aside(connection, old)
                    _end_sessions(connection, name)
                    connection.execute(renaming(name, self.name))
                return
            except Failure as failure:
                if attempt == 9 or "being accessed" not in failure.text:
                    raise
                self.hold()  # the lock may be released already

    def _put_aside(self, connection: psycopg.Connection[Any], old: str) -> None:
        """Rename the live database, and end all sessions in it.

        A database with a session cannot be renamed, so this program's lock must be released. Once
        begun, the rename admits no new sessions and waits for the end of the others. So the lock is
        released only when no other session is left that could take it.
        """
        with ThreadPoolExecutor(1) as pool, self.connect("postgres") as other:
            pid = _pid(connection)
            renamed: Future[Any] = pool.submit(connection.execute, renaming(self.name, old))
            while not renamed.done() and not (
                _is_shut(other, self.name, pid)
                and _end_sessions(other, self.name, but=PostgresAdmin._holder) == 0
            ):
                time.sleep(0.01)
            if not renamed.done():
                self.let_go()
            renamed.result()


def renaming(name: str, new: str) -> sql.Composed:
    """The statement that renames a database."""
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    return rename.format(sql.Identifier(name), sql.Identifier(new))


def _pid(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0


def _is_shut(connection: psycopg.Connection[Any], name: str, pid: int) -> bool:
    """Whether session `pid` has the exclusive lock that keeps new sessions out of a database."""
    query = (
        "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.objid"
        " WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = %s"
        " AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid = %s"
    )
    return connection.execute(query, [name, pid]).fetchone() is not None


def _end_sessions(connection: psycopg.Connection[Any], name: str, *, but: int = 0) -> int:
    """End all sessions in a database except one; returns their number."""
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = %s AND pid NOT IN (%s, pg_backend_pid())"
    )
    row = connection.execute(query, [name, but]).fetchone()
    return int(row[0]) if row else 0
