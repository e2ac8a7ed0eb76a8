"""PostgreSQL: dump and measure a database in one snapshot, restore it into a new one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from deploy.backups.program import directory
from deploy.backups.program.archive import ROOM, Dump, StoredArchive, require_room, room
from deploy.backups.program.pipes import BackupJob
from deploy.backups.program.server import PostgresAdmin, renaming

LOCK_WAIT = "30s"
"""How long a dump waits for a table that another session has locked."""
_MOST = 4
"""The most jobs that are chosen if `backups.jobs` is not set."""
_UNFINISHED = "_restoring_"
_BESIDE = ": several jobs dump into files beside the archive (`backups.jobs: 1` needs half as much)"


class Postgres(PostgresAdmin):
    """A PostgreSQL database that can be dumped, and restored into new ones."""

    @contextlib.contextmanager
    def dumping(self, job: BackupJob, folder: str, request: Mapping[str, Any]) -> Iterator[Dump]:
        """Values for the manifest, and the command that prints the dump, in the same snapshot.

        A database of the size `parallel.from` or more is dumped by several jobs into files, and the
        command prints those. Raises `Failure` if there is no room for them.
        """
        job.enter("snapshot")
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self.locked())
            environment = stack.enter_context(self._service())
            versions, size = self.versions(connection, job), self.size(connection)
            expected = request["expected"]
            jobs = self.jobs(connection, size, request["parallel"], 2 * ROOM * expected or size)
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'".encode())
                row = connection.execute("SELECT pg_export_snapshot()").fetchone()
                facts = {
                    "taken": time.time(),
                    "tables": self.measure(connection),
                    "revision": self.revision(connection),
                    "versions": versions,
                    "database": self.name,
                    "database_size": size,
                    "format": "custom" if jobs == 1 else "directory",
                    "jobs": jobs,
                    "unpacked": 0,
                }
                command = ["pg_dump", f"--snapshot={row[0] if row else ''}", "--no-password"]
                command += [f"--lock-wait-timeout={LOCK_WAIT}", "--dbname=service=amani"]
                job.enter("dump", expected)
                if jobs == 1:
                    command += ["--format=custom", "--compress=none"]
                    yield Dump(facts, command, environment)
                    return
                files, started = stack.enter_context(directory.UnlinkedFiles(folder)), job.started
                directory.dump(job, [*command, f"--jobs={jobs}"], environment, files)
            # The transaction has ended: the server need not keep the snapshot any longer.
            facts["unpacked"] = files.size
            job.enter("pack", files.size)
            with files.linked() as links:
                yield Dump(facts, directory.packing(links), {}, seconds=job.started - started)

    @staticmethod
    def jobs(
        connection: psycopg.Connection[Any], size: int, parallel: Mapping[str, int], needed: float
    ) -> int:
        """The number of jobs that dump a database of `size` bytes; 1 means one stream.

        Raises `Failure` if several are configured and fewer than `needed` bytes are free.
        """
        if size < parallel["from"] or parallel["jobs"] == 1:
            return 1
        if parallel["jobs"]:
            require_room(needed, _BESIDE)
        elif room() < needed:
            return 1  # slower, but a backup
        # Each table and each large object is a file.
        query = "SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'r'), count(*)"
        row = connection.execute(query + " FROM pg_largeobject_metadata").fetchone() or ()
        return _at_once(parallel["jobs"]) if sum(row) < directory.capacity() else 1

    def read(self, job: BackupJob, stored: StoredArchive) -> None:
        """Read an archive with all rows to its end, without a database."""
        if stored.format == "directory":
            directory.read(job, stored)
        else:
            job.enter("read", stored.size)
            job.run(*stored.commands, ["pg_restore", "--file=/dev/null"], source=stored.path)

    def restore(self, job: BackupJob, stored: StoredArchive, name: str, jobs: int) -> None:
        """Restore into the new database `name`, which gets that name when it is complete."""
        building = name.replace("_restored_", _UNFINISHED)
        with self.connect("postgres") as connection:
            self.versions(connection, job)
            for left in self._named(_UNFINISHED.strip("_")):
                self.drop(left)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(building)))
        try:
            self._fill(job, stored, building, jobs)
            with self.connect(building) as connection:
                connection.execute("ANALYZE")
            with self.connect("postgres") as connection:
                connection.execute(renaming(building, name))
        except BaseException:
            self.drop(building)
            raise

    def _fill(self, job: BackupJob, stored: StoredArchive, name: str, jobs: int) -> None:
        # Strict: the first error fails the whole restore.
        strict = ["pg_restore", "--exit-on-error", "--no-owner", "--no-privileges"]
        strict += ["--no-password", f"--dbname=service=amani dbname={name}"]
        with self._service() as environment:
            if stored.format != "directory":
                strict.append("--single-transaction")
                job.enter("restore", stored.size)
                job.run(*stored.commands, strict, source=stored.path, environment=environment)
                return
            # Several sessions cannot share a transaction. None is needed: the database has a
            # temporary name until it is complete.
            strict.append(f"--jobs={_at_once(jobs)}")
            with directory.unpacked(job, stored) as folder:
                job.enter("restore", stored.database_size)
                with self._growing(job, name) as look:
                    job.run([*strict, folder], watch=look, environment=environment)

    @contextlib.contextmanager
    def _growing(self, job: BackupJob, name: str) -> Iterator[Callable[[], None]]:
        """A function that updates the job's progress once a second, from the database's size."""
        looked = 0.0
        with self.connect("postgres") as connection:

            def look() -> None:
                nonlocal looked
                if time.monotonic() - looked > 1:
                    looked = time.monotonic()
                    row = connection.execute("SELECT pg_database_size(%s)", [name]).fetchone()
                    job.done = row[0] if row else 0

            yield look


def _at_once(jobs: int) -> int:
    """The configured number of jobs, or that of the processors, but at most `_MOST`.

    One stream and its compression already use two processors.
    """
    processors = len(os.sched_getaffinity(0))
    return jobs or (min(processors, _MOST) if processors > 2 else 1)
