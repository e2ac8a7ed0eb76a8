"""PostgreSQL: dumped in one snapshot with its measures, restored strictly into a new database."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from deploy.backups.program import directory
from deploy.backups.program.archive import ROOM, Dump, Stored, require_room, room
from deploy.backups.program.pipes import Job
from deploy.backups.program.server import Server, renaming

LOCK_WAIT = "30s"
"""How long a dump waits for a table that somebody wants for himself."""
_MOST = 4
"""Jobs at once where nobody says otherwise."""
_UNFINISHED = "_restoring_"
_BESIDE = ": several jobs dump into files beside the archive (`backups.jobs: 1` needs half of it)"


class Postgres(Server):
    """A database of a server, to be dumped or restored."""

    @contextlib.contextmanager
    def dumping(self, job: Job, folder: str, request: Mapping[str, Any]) -> Iterator[Dump]:
        """What the manifest shall say, and the command that prints exactly that.

        A database of the size `parallel` tells is dumped by several jobs into files, and what is
        printed is their archive. Raises `Failure`, too, where there is no room for them.
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
                files, started = stack.enter_context(directory.Nameless(folder)), job.started
                directory.dump(job, [*command, f"--jobs={jobs}"], environment, files)
            # Nobody needs the snapshot any more, so the server need not keep it.
            facts["unpacked"] = files.size
            job.enter("pack", files.size)
            with files.linked() as links:
                yield Dump(facts, directory.packing(links), {}, seconds=job.started - started)

    @staticmethod
    def jobs(
        connection: psycopg.Connection[Any], size: int, parallel: Mapping[str, int], needed: float
    ) -> int:
        """How many jobs dump a database of a size; 1: as one stream.

        Raises `Failure` where several were asked for and the room they need is not there.
        """
        if size < parallel["from"] or parallel["jobs"] == 1:
            return 1
        if parallel["jobs"]:
            require_room(needed, _BESIDE)
        elif room() < needed:
            return 1  # slower, but a backup
        # A table and a large object are a file each.
        query = "SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'r'), count(*)"
        row = connection.execute(query + " FROM pg_largeobject_metadata").fetchone() or ()
        return _at_once(parallel["jobs"]) if sum(row) < directory.capacity() else 1

    def read(self, job: Job, stored: Stored) -> None:
        """Read an archive to its end without a database, every table's rows among it."""
        if stored.format == "directory":
            directory.read(job, stored)
        else:
            job.enter("read", stored.size)
            job.run(*stored.commands, ["pg_restore", "--file=/dev/null"], source=stored.path)

    def restore(self, job: Job, stored: Stored, name: str, jobs: int) -> None:
        """Restore into the new database `name`: it has that name only when all of it is there."""
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

    def _fill(self, job: Job, stored: Stored, name: str, jobs: int) -> None:
        # Strict: the first thing that cannot be restored fails all of it.
        strict = ["pg_restore", "--exit-on-error", "--no-owner", "--no-privileges"]
        strict += ["--no-password", f"--dbname=service=amani dbname={name}"]
        with self._service() as environment:
            if stored.format != "directory":
                strict.append("--single-transaction")
                job.enter("restore", stored.size)
                job.run(*stored.commands, strict, source=stored.path, environment=environment)
                return
            # Several sessions cannot share a transaction. None is needed: nobody knows of this
            # database until all of it is there.
            strict.append(f"--jobs={_at_once(jobs)}")
            with directory.unpacked(job, stored) as folder:
                job.enter("restore", stored.database_size)
                with self._growing(job, name) as look:
                    job.run([*strict, folder], watch=look, environment=environment)

    @contextlib.contextmanager
    def _growing(self, job: Job, name: str) -> Iterator[Callable[[], None]]:
        """What tells the job, once a second, how large a database is by now."""
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
    """How many jobs: as many as asked for, or as this host has processors, but not too many.

    Two processors are busy with one stream and its compression already.
    """
    processors = len(os.sched_getaffinity(0))
    return jobs or (min(processors, _MOST) if processors > 2 else 1)
