"""SQLite: copy a database by its online backup, restore it into a new file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from deploy.backups.program import archive
from deploy.backups.program.pipes import BackupJob, Failure


class Sqlite:
    """A database in a file, with the interface of `Postgres`."""

    _held: ClassVar[int | None] = None
    """The descriptor that keeps the lock for this program, across its jobs."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self.name, self._suffix = os.path.splitext(os.path.basename(path))

    def _file(self, name: str = "") -> str:
        return os.path.join(self._folder, (name or self.name) + self._suffix)

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[sqlite3.Connection]:
        # An empty file would be a valid database without tables.
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise Failure(f"there is no database at {path}", kind="usage")
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise Failure(f"the database {path}: {error}") from None

    def _measure(self, path: str) -> dict[str, Any]:
        """The `tables` and the `revision`. Raises `Failure` if the file is damaged."""
        with self._open(path) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if sound != "ok":
                raise Failure(f"the database is damaged: {sound}")
            query = (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
            tables = {}
            for (table,) in connection.execute(query + " ORDER BY 1").fetchall():
                columns = [
                    str(row[1])
                    for row in connection.execute(f"PRAGMA table_info({_quote(table)})").fetchall()
                    if re.search("INT|NUM|DEC", str(row[2]), re.I)
                ]
                sums = "".join(f", sum({_quote(column)})" for column in columns)
                row = connection.execute(
                    f"SELECT count(*){sums} FROM {_quote(table)}"  # nosec B608 - quoted
                ).fetchone()
                values = dict(zip(columns, (str(value or 0) for value in row[1:]), strict=True))
                tables[table] = {"rows": row[0], "sums": values}
            revision = ""
            if "alembic_version" in tables:
                rows = connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")
                revision = " ".join(str(row[0]) for row in rows.fetchall())
        return {"tables": tables, "revision": revision}

    def look(self, name: str = "") -> dict[str, Any]:
        """The `tables` and the `revision` of a database."""
        return self._measure(self._file(name))

    @contextlib.contextmanager
    def dumping(
        self, job: BackupJob, folder: str, request: Mapping[str, Any]
    ) -> Iterator[archive.Dump]:
        """Values for the manifest, and the command that prints a copy of the database."""
        job.enter("snapshot")
        copy = os.path.join(folder, "copy")
        with self._locked(), self._open(self._path) as connection:
            with contextlib.closing(sqlite3.connect(copy)) as target:
                # In one step: with several, each write restarts the backup.
                taken = time.time()
                connection.backup(target, pages=-1)
        job.check()
        facts = {
            "taken": taken,
            **self._measure(copy),
            "versions": {"engine": "sqlite", "server": sqlite3.sqlite_version},
            "database": self.name,
            "database_size": os.path.getsize(copy),
            "format": "file",
            "jobs": 1,
            "unpacked": 0,
        }
        job.enter("dump", request["expected"])
        yield archive.Dump(facts, ["cat", copy], {})
        os.unlink(copy)

    def read(self, job: BackupJob, stored: archive.StoredArchive) -> None:
        """Unpack an archive into a temporary file, and check that database."""
        path = os.path.join(archive.FOLDER, f".reading-{os.getpid()}{archive.PARTIAL}")
        job.enter("read", stored.size)
        try:
            self._unpack(job, stored, path)
            self._measure(path)
        finally:
            _remove(path)

    def restore(self, job: BackupJob, stored: archive.StoredArchive, name: str, jobs: int) -> None:
        """Restore into the new database `name`, which is removed on failure. Ignores `jobs`."""
        job.enter("restore", stored.size)
        path = self._file(name)
        if os.path.exists(path):
            raise Failure(f"{path} exists already", kind="usage")
        try:
            self._unpack(job, stored, path)
            self._measure(path)
            owner = os.stat(self._path if os.path.exists(self._path) else self._folder)
            os.chown(path, owner.st_uid, owner.st_gid)
        except BaseException:
            _remove(path)
            raise

    def _unpack(self, job: BackupJob, stored: archive.StoredArchive, path: str) -> None:
        with open(path, "wb") as file:
            job.run(*stored.commands, source=stored.path, sink=file.write)
            file.flush()
            os.fsync(file.fileno())

    def drop(self, name: str) -> None:
        """Remove the file of a database."""
        _remove(self._file(name))

    # -- the lock that migrations, backups and restores take ---------------------------------------

    def _lock(self) -> int:
        """Lock the file's folder, as a migration does: a swap replaces the file, not the folder."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Failure(
                "a migration, a backup or a restore is under way on this database",
                kind="locked",
                hint="wait until it has ended, and run this command again",
            ) from None
        return descriptor

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = self._lock() if Sqlite._held is None else None
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def hold(self) -> None:
        """Take the lock and keep it until a swap or the end of the program."""
        if Sqlite._held is None:
            Sqlite._held = self._lock()

    @staticmethod
    def let_go() -> None:
        """Release the lock that `hold` took."""
        if (held := Sqlite._held) is not None:
            Sqlite._held = None
            os.close(held)

    # -- other databases in the folder -------------------------------------------------------------

    def replaced(self) -> list[str]:
        """The names of the databases that restores created or replaced."""
        pattern = re.compile(rf"({re.escape(self.name)}_(?:restored|before)_[0-9a-z]+)")
        stems = (os.path.splitext(file)[0] for file in os.listdir(self._folder))
        return sorted({stem for stem in stems if pattern.fullmatch(stem)})

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def swap(self, name: str, old: str) -> None:
        """Rename the live database to `old` and `name` to its name. The service must be stopped."""
        if self.exists():
            with self._open(self._path) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # Linked, not renamed, so that the live database exists at all times.
            os.link(self._path, self._file(old))
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + ending)
        os.replace(self._file(name), self._path)
        self.let_go()


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ending)
