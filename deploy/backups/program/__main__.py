"""Run one job at a time. Requests and answers are lines of JSON on standard input and output.

The program ends, and its job with it, at the end of its input or when no request has come for
`PATIENCE` seconds. So no job stays on the host if the deployer is killed or the network fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deploy.backups.program import archive, copies
from deploy.backups.program.pipes import BackupJob, Failure
from deploy.backups.program.postgres import Postgres
from deploy.backups.program.sqlite import Sqlite

Request = Mapping[str, Any]
PATIENCE = float(os.environ.get("PATIENCE", "60"))
"""Seconds without a request after which the program ends."""


def database(request: Request) -> Postgres | Sqlite:
    """The database at a request's `url`."""
    url = str(request["url"])
    path = url.partition(":///")[2] if url.startswith("sqlite") else ""
    return Sqlite(path) if path else Postgres(url)


def back_up(job: BackupJob, request: Request) -> dict[str, Any]:
    """Make an archive, read it to its end, rename its folder, and return its manifest."""
    started = time.monotonic()
    archive.clear_partials()
    archive.require_room(archive.ROOM * request["expected"])
    recipients = list(request["recipients"])
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(archive.partial(request["id"]))
        identity, temporary = (
            stack.enter_context(archive.temporary_key()) if recipients else ("", "")
        )
        keys = [*recipients, temporary] if recipients else []
        source = database(request)
        job.enter("snapshot")
        with source.dumping(job, folder, request) as dump:
            sha256, size = archive.write(job, folder, [dump.command], keys, dump.environment)
            dumped = dump.seconds + time.monotonic() - job.started
        job.enter("test", size)
        archive.require_whole(job, folder, sha256, size)
        manifest = {
            **request["manifest"],
            **dump.facts,
            "id": request["id"],
            "sha256": sha256,
            "size": size,
            "recipients": recipients,
            "dump_seconds": round(dumped, 3),
        }
        source.read(job, archive.reading(folder, bool(recipients), identity, manifest))
        manifest["seconds"] = round(time.monotonic() - started, 3)
        job.check()
        archive.finish(folder, manifest)
    return manifest


@contextlib.contextmanager
def _archive(request: Request) -> Iterator[archive.StoredArchive]:
    folder = os.path.join(archive.FOLDER, request["id"])
    with contextlib.ExitStack() as stack:
        identity = ""
        if request["encrypted"]:
            if not request.get("identity"):
                raise Failure("the archive is encrypted and the request has no key", kind="usage")
            identity = stack.enter_context(archive.given_key(request["identity"]))
        yield archive.reading(folder, request["encrypted"], identity, request)


def hash_(job: BackupJob, request: Request) -> None:
    """Raise `Failure` if size or SHA-256 of the archive differ from the request's."""
    job.enter("hash", request["size"])
    folder = os.path.join(archive.FOLDER, request["id"])
    archive.require_whole(job, folder, request["sha256"], request["size"])


def read(job: BackupJob, request: Request) -> None:
    """Raise `Failure` if the archive cannot be decrypted and read to its end."""
    hash_(job, request)
    with _archive(request) as stored:
        database(request).read(job, stored)


def restore(job: BackupJob, request: Request) -> dict[str, Any]:
    """Restore into the new database `name`, and return its `tables` and `revision`."""
    hash_(job, request)
    target = database(request)
    with _archive(request) as stored:
        target.restore(job, stored, request["name"], request["jobs"])
    job.enter("compare")
    return target.look(request["name"])


def describe(job: BackupJob, request: Request) -> dict[str, Any]:
    """Name and existence of the live database, and the names of those that restores left."""
    found = database(request)
    return {"name": found.name, "exists": found.exists(), "replaced": found.replaced()}


def look(job: BackupJob, request: Request) -> dict[str, Any]:
    """The `tables` and the `revision` of the database."""
    job.enter("compare")
    return database(request).look()


def query(job: BackupJob, request: Request) -> list[dict[str, Any]]:
    """For each query its one `value`, or the server's `error`."""
    job.enter("query")
    found = database(request)
    if isinstance(found, Sqlite):
        raise Failure("SQLite has no archive to query", kind="usage")
    return found.query(request["queries"])


def await_ready(job: BackupJob, request: Request) -> dict[str, Any]:
    """Request the URL `page` until its status is 200, and return the status.

    Raises `Failure` after `patience` seconds.
    """
    job.enter("boot")
    deadline = time.monotonic() + float(request["patience"])
    while True:
        job.check()
        try:
            with urllib.request.urlopen(request["page"], timeout=5) as answer:  # nosec B310
                return {"status": answer.status}
        except urllib.error.HTTPError as error:
            problem = f"{error.code}: {error.read(500).decode(errors='replace')}"
        except OSError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise Failure(f"the service is not ready on the restored database: {problem}")
        time.sleep(0.1)


JOBS: Mapping[str, Callable[[BackupJob, Request], Any]] = {
    "back-up": back_up,
    "hash": hash_,
    "read": read,
    "restore": restore,
    "describe": describe,
    "drop": lambda job, request: database(request).drop(request["name"]),
    "hold": lambda job, request: database(request).hold(),
    "swap": lambda job, request: database(request).swap(request["name"], request["old"]),
    "look": look,
    "query": query,
    "await-ready": await_ready,
    "copy": copies.send,
    "fetch": copies.fetch,
    "copied": copies.listing,
}


class JobRunner:
    """Runs jobs in a thread, one at a time, and keeps the result of the last one."""

    def __init__(self) -> None:
        self.requested = time.monotonic()
        """When the last request came."""
        self._job = BackupJob()
        self._number = 0
        self._outcome: dict[str, Any] = {"state": "unknown"}
        self._thread: threading.Thread | None = None

    def answer(self, request: Request) -> dict[str, Any]:
        """Start or stop a job and report its progress; a repeated `number` starts nothing."""
        self.requested = time.monotonic()
        if request["job"] == "stop":
            self.end()
        elif request["job"] != "poll" and request["number"] != self._number:
            self._number, self._job = request["number"], BackupJob()
            self._outcome = {"state": "running"}
            self._thread = threading.Thread(target=self._work, args=(request,), daemon=True)
            self._thread.start()
        if request["number"] != self._number:
            return {"state": "unknown"}
        job = self._job
        seconds = time.monotonic() - job.started
        progress = {"bytes": job.done, "total": job.total, "seconds": seconds}
        return {**self._outcome, "phase": job.phase, **progress}

    def _work(self, request: Request) -> None:
        try:
            result = JOBS[request["job"]](self._job, request)
            self._outcome = {"state": "done", "result": result}
        except Failure as failure:
            details = {"kind": failure.kind, "text": failure.text, "hint": failure.hint}
            self._outcome = {"state": "failed", **details}
        except Exception as error:  # the answer is the deployer's only way to see it
            text = f"{type(error).__name__}: {error}"
            self._outcome = {"state": "failed", "kind": "failed", "text": text, "hint": ""}

    def end(self) -> None:
        """Stop the job and wait until it has removed its partial result."""
        self._job.stop()
        if self._thread is not None:
            self._thread.join(20)


def main() -> None:
    """Answer requests until the input ends."""
    archive.clear_partials()
    runner = JobRunner()

    def watch() -> None:
        while time.monotonic() - runner.requested < PATIENCE:
            time.sleep(1)
        runner.end()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        print(json.dumps(runner.answer(json.loads(line))), flush=True)
    runner.end()


if __name__ == "__main__":
    main()
