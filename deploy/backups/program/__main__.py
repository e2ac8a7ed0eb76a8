"""One job at a time, asked for and asked after on standard input, one line of JSON each way.

It ends, and its job with it, when its input does or when nobody has asked for a while: so a
deployer that was killed, or a network that broke, leaves nothing at work on the host.
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
from deploy.backups.program.pipes import Failure, Job
from deploy.backups.program.postgres import Postgres
from deploy.backups.program.sqlite import Sqlite

Request = Mapping[str, Any]
PATIENCE = float(os.environ.get("PATIENCE", "60"))
"""Seconds without a question after which nobody waits any more."""


def database(request: Request) -> Postgres | Sqlite:
    """The database that a request is about."""
    url = str(request["url"])
    path = url.partition(":///")[2] if url.startswith("sqlite") else ""
    return Sqlite(path) if path else Postgres(url)


def back_up(job: Job, request: Request) -> dict[str, Any]:
    """Make an archive, read it to its end, and give it its name. Returns its manifest."""
    started = time.monotonic()
    archive.clear_partials()
    archive.require_room(archive.ROOM * request["expected"])
    recipients = list(request["recipients"])
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(archive.partial(request["id"]))
        identity, passing = stack.enter_context(archive.passing_key()) if recipients else ("", "")
        keys = [*recipients, passing] if recipients else []
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
def _archive(request: Request) -> Iterator[archive.Stored]:
    folder = os.path.join(archive.FOLDER, request["id"])
    with contextlib.ExitStack() as stack:
        identity = ""
        if request["encrypted"]:
            if not request.get("identity"):
                raise Failure("the archive is encrypted, and no key was given", kind="usage")
            identity = stack.enter_context(archive.given_key(request["identity"]))
        yield archive.reading(folder, request["encrypted"], identity, request)


def hash_(job: Job, request: Request) -> None:
    """Whether the archive is the one that was written."""
    job.enter("hash", request["size"])
    folder = os.path.join(archive.FOLDER, request["id"])
    archive.require_whole(job, folder, request["sha256"], request["size"])


def read(job: Job, request: Request) -> None:
    """Whether the archive can be opened and read to its end."""
    hash_(job, request)
    with _archive(request) as stored:
        database(request).read(job, stored)


def restore(job: Job, request: Request) -> dict[str, Any]:
    """Restore into a new database; returns its measures."""
    hash_(job, request)
    target = database(request)
    with _archive(request) as stored:
        target.restore(job, stored, request["name"], request["jobs"])
    job.enter("compare")
    return target.look(request["name"])


def describe(job: Job, request: Request) -> dict[str, Any]:
    """What the live database is called, and what restores left beside it."""
    found = database(request)
    return {"name": found.name, "exists": found.exists(), "replaced": found.replaced()}


def look(job: Job, request: Request) -> dict[str, Any]:
    """The measures and the revision of a database."""
    job.enter("compare")
    return database(request).look()


def query(job: Job, request: Request) -> list[dict[str, Any]]:
    """What each query finds, the one value of it; or why the server does not say."""
    job.enter("ask")
    found = database(request)
    if isinstance(found, Sqlite):
        raise Failure("SQLite is not archived", kind="usage")
    return found.query(request["queries"])


def ask(job: Job, request: Request) -> dict[str, Any]:
    """What a URL answers, asked until that is 200 or the time is over."""
    job.enter("boot")
    deadline = time.monotonic() + float(request["patience"])
    while True:
        job.check()
        try:
            with urllib.request.urlopen(request["page"], timeout=5) as answer:  # nosec B310
                return {"status": answer.status}
        except urllib.error.HTTPError as error:
            said = f"{error.code}: {error.read(500).decode(errors='replace')}"
        except OSError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise Failure(f"the service is not ready on it: {said}")
        time.sleep(0.1)


JOBS: Mapping[str, Callable[[Job, Request], Any]] = {
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
    "ask": ask,
    "copy": copies.send,
    "fetch": copies.fetch,
    "copied": copies.listing,
}


class Desk:
    """The job under way, and what became of it."""

    def __init__(self) -> None:
        self.asked = time.monotonic()
        self._job = Job()
        self._number = 0
        self._outcome: dict[str, Any] = {"state": "unknown"}
        self._thread: threading.Thread | None = None

    def answer(self, request: Request) -> dict[str, Any]:
        """Begin the job that is asked for, or say how far it is."""
        self.asked = time.monotonic()
        if request["job"] == "stop":
            self.end()
        elif request["job"] != "poll" and request["number"] != self._number:
            self._number, self._job = request["number"], Job()
            self._outcome = {"state": "running"}
            self._thread = threading.Thread(target=self._work, args=(request,), daemon=True)
            self._thread.start()
        if request["number"] != self._number:
            return {"state": "unknown"}
        job = self._job
        seconds = time.monotonic() - job.started
        far = {"bytes": job.done, "total": job.total, "seconds": seconds}
        return {**self._outcome, "phase": job.phase, **far}

    def _work(self, request: Request) -> None:
        try:
            result = JOBS[request["job"]](self._job, request)
            self._outcome = {"state": "done", "result": result}
        except Failure as failure:
            said = {"kind": failure.kind, "text": failure.text, "hint": failure.hint}
            self._outcome = {"state": "failed", **said}
        except Exception as error:  # told to whoever asked, who has no other way to hear of it
            text = f"{type(error).__name__}: {error}"
            self._outcome = {"state": "failed", "kind": "failed", "text": text, "hint": ""}

    def end(self) -> None:
        """Stop the job and wait until it has tidied up."""
        self._job.stop()
        if self._thread is not None:
            self._thread.join(20)


def main() -> None:
    """Answer until the input ends."""
    archive.clear_partials()
    desk = Desk()

    def watch() -> None:
        while time.monotonic() - desk.asked < PATIENCE:
            time.sleep(1)
        desk.end()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        print(json.dumps(desk.answer(json.loads(line))), flush=True)
    desk.end()


if __name__ == "__main__":
    main()
