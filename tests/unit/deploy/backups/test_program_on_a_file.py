"""The program of the backup container, run on an SQLite file of this machine."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyrage
import pytest

from deploy.machine.checkout import ROOT
from deploy.machine.checkout import program as deployed
from tests.support.waiting import eventually

NOWHERE = "http://127.0.0.1:9/"


class Program:
    """The program, with requests as the deployer sends them."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self._numbers = itertools.count(1)
        self.url = url or f"sqlite:///{folder}/amani.sqlite3"
        (folder / "backups").mkdir()
        # From its source, for coverage; in the container it is one file.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.backups.program"],
            cwd=ROOT,
            env={**os.environ, "BACKUPS": str(folder / "backups")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return dict(json.loads(self._process.stdout.readline()))

    def run(self, job: str, **request: Any) -> dict[str, Any]:
        number = next(self._numbers)
        said = self.send(job=job, number=number, **{"url": self.url, **request})
        if said["state"] == "running":
            said = eventually(lambda: self._ended(number))
        return said

    def _ended(self, number: int) -> dict[str, Any] | None:
        said = self.send(job="poll", number=number)
        return None if said["state"] == "running" else said

    def ok(self, job: str, **request: Any) -> Any:
        said = self.run(job, **request)
        assert said["state"] == "done", said
        return said["result"]

    def refusal(self, job: str, **request: Any) -> tuple[str, str]:
        said = self.run(job, **request)
        assert said["state"] == "failed", said
        return str(said["kind"]), str(said["text"])

    def close(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "amani.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0003')")
        connection.execute('CREATE TABLE "odd ""name" (id INTEGER, amount BIGINT, note TEXT)')
        rows = [(number, number * 10, "x") for number in range(1, 101)]
        connection.executemany('INSERT INTO "odd ""name" VALUES (?, ?, ?)', rows)
    return path


@pytest.fixture
def program(tmp_path: Path, live: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    made.close()


MEASURES = {
    "alembic_version": {"rows": 1, "sums": {}},
    'odd "name': {"rows": 100, "sums": {"id": "5050", "amount": "50500"}},
}


def back_up(program: Program, id_: str = "one", **changes: Any) -> dict[str, Any]:
    request = {"id": id_, "expected": 1, "recipients": [], "manifest": {"environment": "trial"}}
    return dict(program.ok("back-up", **{**request, **changes}))


def of(manifest: dict[str, Any], **changes: Any) -> dict[str, Any]:
    names = ("id", "sha256", "size", "format", "unpacked", "database_size")
    told = {"encrypted": bool(manifest["recipients"]), "jobs": 0}
    return {**{name: manifest[name] for name in names}, **told, **changes}


def test_a_backup_is_restored_and_replaces_the_live_database(
    program: Program, live: Path, tmp_path: Path
):
    abandoned = tmp_path / "backups" / "cut-short.partial"
    abandoned.mkdir()
    manifest = back_up(program)
    assert not abandoned.exists()
    assert (manifest["tables"], manifest["revision"]) == (MEASURES, "0003")
    written = json.loads((tmp_path / "backups" / "one" / "manifest.json").read_text())
    assert written == manifest
    assert manifest["environment"] == "trial"

    with closing(sqlite3.connect(live)) as connection, connection:
        connection.execute('DELETE FROM "odd ""name"')
    found = program.ok("restore", **of(manifest), name="amani_restored_1")
    assert found == {"tables": MEASURES, "revision": "0003"}
    told = {"name": "amani", "exists": True, "replaced": ["amani_restored_1"]}
    assert program.ok("describe") == told
    program.ok("swap", name="amani_restored_1", old="amani_before_1")
    with closing(sqlite3.connect(live)) as connection:
        assert connection.execute('SELECT count(*) FROM "odd ""name"').fetchone() == (100,)
    program.ok("drop", name="amani_before_1")
    assert program.ok("describe")["replaced"] == []


def test_a_restore_locks_out_migrations_backups_and_restores(
    program: Program, live: Path, tmp_path: Path
):
    manifest = back_up(program)
    program.ok("hold")
    program.ok("restore", **of(manifest), name="amani_restored_1")
    back_up(program, "before")  # as within a restore, which has the lock
    (tmp_path / "other").mkdir()
    other = Program(tmp_path / "other", program.url)
    migrated = subprocess.run(
        [deployed("flask"), "db", "upgrade"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": program.url},
        capture_output=True,
        text=True,
    )
    assert migrated.returncode == 1 and "Traceback" not in migrated.stderr
    assert "another migration is running on this database, or a backup" in migrated.stderr
    request = {"id": "two", "expected": 1, "recipients": [], "manifest": {}}
    for job, more in (("hold", {}), ("back-up", request)):
        kind, text = other.refusal(job, **more)
        assert kind == "locked" and text.startswith("a migration, a backup or a restore is under")
    program.ok("swap", name="amani_restored_1", old="amani_before_1")
    other.ok("hold")
    assert program.refusal("hold")[0] == "locked"
    other.close()
    program.ok("hold")


def test_an_encrypted_backup_is_hashed_without_its_key_and_read_only_with_it(program: Program):
    own, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    manifest = back_up(program, recipients=[str(own.to_public())])
    program.ok("hash", **of(manifest))
    program.ok("read", **of(manifest), identity=str(own))
    kind, text = program.refusal("read", **of(manifest))
    assert (kind, "the request has no key" in text) == ("usage", True)
    _, text = program.refusal("read", **of(manifest), identity=str(other))
    assert "`age` ended with 1" in text
    assert str(other) not in text


def test_a_changed_archive_is_refused(program: Program, tmp_path: Path):
    manifest = back_up(program)
    archive = tmp_path / "backups" / "one" / "archive"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "SHA-256 of the archive differs" in program.refusal("hash", **of(manifest))[1]
    archive.write_bytes(whole[:-1])
    assert "bytes, not the" in program.refusal("read", **of(manifest))[1]
    archive.unlink()
    assert "cannot be read" in program.refusal("hash", **of(manifest))[1]


def test_a_failed_job_reports_its_cause_and_leaves_nothing(
    program: Program, live: Path, tmp_path: Path
):
    manifest = back_up(program)
    request = {"id": "two", "expected": 1, "recipients": [], "manifest": {}}
    kind, text = program.refusal("back-up", **request | {"expected": 1 << 60})
    assert kind == "refused" and "are free for backups" in text
    _, text = program.refusal("back-up", **request | {"recipients": ["no key"]})
    assert "`age` ended with 1" in text
    kind, text = program.refusal("restore", **of(manifest), name="amani")
    assert (kind, "exists already" in text) == ("usage", True)
    live.write_bytes(b"no database, but as long as one would be" * 100)
    assert "file is not a database" in program.refusal("back-up", **request)[1]
    live.unlink()
    assert program.refusal("back-up", **request)[0] == "usage"
    assert program.ok("describe")["exists"] is False
    assert program.refusal("no-such-job")[1] == "KeyError: 'no-such-job'"
    assert sorted(path.name for path in (tmp_path / "backups").iterdir()) == ["one"]


def test_a_service_is_requested_until_it_is_ready_or_the_time_is_over(program: Program):
    class Handler(http.server.BaseHTTPRequestHandler):
        statuses = [503, 200]

        def do_GET(self) -> None:
            self.send_response(self.statuses.pop(0))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{server.server_port}/"
    assert program.ok("await-ready", page=page, patience=20) == {"status": 200}
    server.shutdown()
    server.server_close()
    _, text = program.refusal("await-ready", page=NOWHERE, patience=0.2)
    assert "the service is not ready on the restored database" in text


def test_stopped_job_ends(program: Program):
    asked = {"job": "await-ready", "number": 7, "url": program.url, "page": NOWHERE, "patience": 60}
    assert program.send(**asked)["state"] == "running"
    said = program.send(job="stop", number=7)
    assert (said["state"], said["kind"]) == ("failed", "stopped")
