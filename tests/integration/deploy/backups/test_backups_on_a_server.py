"""Backups of a real PostgreSQL server: make, verify, restore and prune them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest

from deploy.backups import jobs
from deploy.backups.container import BASE, archive_program
from deploy.backups.manifest import BackupManifest
from deploy.backups.program.server import PostgresAdmin
from deploy.errors import DeployError, GateRefused, Locked, UsageError
from deploy.events import Event, Events
from deploy.machine.checkout import ROOT, program
from deploy.operations.backup import list_backups, make_backup, prune_backups
from deploy.operations.recovery_archive import recovery_status, set_up_archiving
from deploy.operations.restore import restore_backup, run_drill, verify_backup
from tests.integration.deploy.backups.conftest import (
    APART,
    PASSWORD,
    SILENT,
    BackupSite,
    wait_for_dump,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine


def count(site: BackupSite, database: str) -> tuple[int, int]:
    with site.connect(database) as connection:
        row = connection.execute("SELECT count(*), sum(amount) FROM ledger").fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def test_the_manifest_describes_the_backup(site: BackupSite, database: str):
    heard: list[Event] = []
    manifest = make_backup(site.name, Events(heard.append)).manifest
    assert manifest.tables["public.ledger"] == {
        "rows": 2000,
        "sums": {"id": "2001000", "amount": "200100000"},
    }
    assert (manifest.revision, manifest.environment, manifest.host) == ("0007", site.name, "here")
    folder = site.backups / manifest.id
    assert (folder / "archive").stat().st_size == manifest.size
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert [found.manifest for found in list_backups(site.name, SILENT)] == [manifest]
    told = [event.text for event in heard if event.kind == "step-progress"]
    assert told and all(re.match(r"\w*: [\d,.]+ MB, [\d,.]+ MB/s", text) for text in told)
    assert (manifest.format, manifest.jobs, manifest.unpacked) == ("custom", 1, 0)
    site.environment(database, **APART)
    apart = make_backup(site.name, SILENT).manifest
    assert (apart.format, apart.jobs, apart.unpacked > 0) == ("directory", 2, True)
    assert apart.tables == manifest.tables
    assert site.partials() == [] and site.tools() == []


def test_a_verification_by_restore_leaves_no_database(site: BackupSite, database: str):
    made = make_backup(site.name, SILENT).manifest
    forget(site.backups / made.id / "manifest.json", "format", "jobs", "unpacked")
    with site.connect("postgres") as connection:  # as left by a killed run
        connection.execute(f"CREATE DATABASE {database}_restoring_1")
    assert verify_backup(site.name, SILENT, level="hash").level == "hash"
    assert verify_backup(site.name, SILENT, level="read").level == "read"
    assert verify_backup(site.name, SILENT).level == "restored"
    verify_backup(site.name, SILENT, level="hash")
    (found,) = list_backups(site.name, SILENT)
    assert found.verification and found.verification.level == "restored"
    metrics = (site.backups / "metrics.prom").read_text()
    assert f"{found.manifest.taken:.0f}" in metrics
    with site.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def forget(path: Path, *names: str) -> None:
    """Remove keys from a manifest, as in one of an earlier version."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in content if key not in names}))


@pytest.mark.parametrize("settings", [{}, APART], ids=["custom", "directory"])
def test_an_encrypted_backup_is_decrypted_only_with_its_key(
    site: BackupSite, database: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
):
    key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    site.environment(database, recipients=[str(key.to_public())], **settings)
    manifest = make_backup(site.name, SILENT).manifest
    archive = (site.backups / manifest.id / "archive").read_bytes()
    assert archive.startswith(b"age-encryption.org/v1")
    with pytest.raises(UsageError, match="is encrypted"):
        verify_backup(site.name, SILENT)
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(other))
    with pytest.raises(DeployError, match="`age` ended with 1"):
        verify_backup(site.name, SILENT, level="read")
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(key))
    assert verify_backup(site.name, SILENT).level == "restored"


def test_no_secret_is_in_arguments_or_container_attributes(
    site: BackupSite, database: str, held_dump, monkeypatch: pytest.MonkeyPatch
):
    command = site.invoke("db.backup")
    wait_for_dump(site, database)
    (tool,) = site.tools()
    listed = site.in_tool(
        "import glob\n" "for path in glob.glob('/proc/[0-9]*/cmdline'): print(open(path).read())"
    )[1]
    assert "pg_dump" in listed
    assert PASSWORD not in listed + json.dumps(tool.attrs)
    held_dump.execute("ROLLBACK")
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 0 and PASSWORD not in output


def test_a_restore_contains_every_write_acknowledged_before_the_snapshot(
    site: BackupSite, database: str
):
    acknowledged: list[tuple[float, int]] = []
    stop = threading.Event()

    def write() -> None:
        with site.connect(database) as connection:
            while not stop.is_set():
                row = connection.execute(
                    "INSERT INTO ledger (amount, note) VALUES (7, 'w') RETURNING id"
                ).fetchone()
                assert row is not None
                acknowledged.append((time.time(), int(row[0])))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(acknowledged) > 50)
        asked = time.time()
        manifest = make_backup(site.name, SILENT).manifest
    finally:
        stop.set()
        writer.join(60)
    assert len(acknowledged) > manifest.tables["public.ledger"]["rows"] - 2000  # writes continued
    with site.connect("postgres") as connection:
        connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    done = restore_backup(site.name, SILENT, replace=True)
    assert done.previous == "none"
    rows, total = count(site, database)
    ledger = manifest.tables["public.ledger"]
    assert (str(rows), str(total)) == (str(ledger["rows"]), ledger["sums"]["amount"])
    with site.connect(database) as connection:
        there = {row[0] for row in connection.execute("SELECT id FROM ledger").fetchall()}
    assert {id for at, id in acknowledged if at < asked} <= there


def test_a_restore_changes_the_live_database_only_with_replace(site: BackupSite, database: str):
    make_backup(site.name, SILENT)
    with site.connect(database) as connection:
        connection.execute("DELETE FROM ledger WHERE id > 5")
    beside = restore_backup(site.name, SILENT)
    assert count(site, database)[0] == 5 and count(site, beside.database)[0] == 2000
    asked: list[str] = []
    id = beside.backup.manifest.id
    done = restore_backup(site.name, SILENT, id=id, replace=True, confirm=asked.append)
    assert asked == [f"replace the database of {site.name} by backup {id}?"]
    assert count(site, database)[0] == 2000 and count(site, done.previous)[0] == 5
    reasons = [found.manifest.reason for found in list_backups(site.name, SILENT)]
    assert reasons == ["asked", "restore"]
    _, dropped = prune_backups(site.name, SILENT, databases=True)
    assert {beside.database, done.previous} <= set(dropped)
    assert count(site, database)[0] == 2000


def test_a_database_with_open_sessions_is_replaced(site: BackupSite, database: str):
    make_backup(site.name, SILENT)
    with site.connect(database) as used:
        used.execute("DELETE FROM ledger")
        restore_backup(site.name, SILENT, replace=True)
        assert used.pgconn.status is not None
    assert count(site, database)[0] == 2000


def test_sqlite_is_backed_up_during_writes_and_restored(site: BackupSite):
    site.environment()
    image = "python:3.13-slim-trixie"
    volume = {f"amani-{site.name}-data": {"bind": "/data", "mode": "rw"}}
    script = """
import sqlite3, itertools
c = sqlite3.connect('/data/amani.sqlite3', isolation_level=None)
c.execute('PRAGMA journal_mode=WAL')
c.execute('CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, amount BIGINT)')
c.execute('CREATE TABLE IF NOT EXISTS total (amount BIGINT)')
c.execute('INSERT INTO total VALUES (0)')
for n in itertools.count(1):
    c.execute('BEGIN IMMEDIATE')
    c.execute('INSERT INTO entry (amount) VALUES (?)', (n,))
    c.execute('UPDATE total SET amount = amount + ?', (n,))
    c.execute('COMMIT')
    if n == 500: print('going', flush=True)
"""
    writer = site.engine.containers.run(
        image, ["python3", "-c", script], volumes=volume, detach=True
    )
    try:
        eventually(lambda: b"going" in writer.logs())
        manifest = make_backup(site.name, SILENT).manifest
        assert verify_backup(site.name, SILENT).level == "restored"
    finally:
        writer.remove(force=True)
    entries = manifest.tables["entry"]
    assert entries["rows"] >= 500
    assert entries["sums"]["amount"] == manifest.tables["total"]["sums"]["amount"]
    site.engine.containers.run(
        image, ["sh", "-c", "echo rubbish >/data/amani.sqlite3"], volumes=volume, remove=True
    )
    with pytest.raises(DeployError, match="malformed|not a database"):
        make_backup(site.name, SILENT)
    site.engine.containers.run(
        image, ["sh", "-c", "rm /data/amani.sqlite3*"], volumes=volume, remove=True
    )
    with pytest.raises(UsageError, match="there is no database"):
        make_backup(site.name, SILENT)
    assert site.partials() == []

    # The swap stops the service; if the run is killed, the next one starts it.
    labels = {"amani.environment": site.name, "amani.role": "web"}
    serving = "trap exit TERM; while :; do sleep 0.1; done"
    web = site.engine.containers.run(image, ["sh", "-c", serving], labels=labels, detach=True)
    argv = [sys.executable, "-c", KILLED, site.name, "restore", "before", "swap", manifest.id]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    web.reload()
    assert (done.returncode, web.status) == (-signal.SIGKILL, "exited"), done.stderr
    restore_backup(site.name, SILENT, replace=True)
    web.reload()
    assert web.status == "running" and not (site.backups / "stopped").exists()
    again = make_backup(site.name, SILENT).manifest
    assert again.tables == manifest.tables
    files = {path.name for path in (site.backups / again.id).iterdir()}
    assert files == {"archive", "manifest.json"}


def test_pruning_removes_backups_that_no_rule_keeps(site: BackupSite, database: str):
    site.environment(database, keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0})
    first, second = (make_backup(site.name, SILENT).manifest.id for _ in range(2))
    gone, _ = prune_backups(site.name, SILENT, dry_run=True)
    assert [found.manifest.id for found in gone] == [first]
    assert len(list_backups(site.name, SILENT)) == 2
    prune_backups(site.name, SILENT)
    assert [found.manifest.id for found in list_backups(site.name, SILENT)] == [second]


def test_the_program_is_built_reproducibly():
    assert archive_program() == archive_program()


def test_the_commands_in_the_guide_restore_the_data(site: BackupSite, database: str):
    make_backup(site.name, SILENT)
    verify_backup(site.name, SILENT)
    with site.connect(database) as connection:
        connection.execute("DROP TABLE ledger")
    (found,) = list_backups(site.name, SILENT)
    guide = (ROOT / "docs" / "backups.md").read_text()
    _, first, *_ = re.split("^## ", guide, flags=re.MULTILINE)
    commands = re.findall(r"^ +\./inv (db\.\S+)(.*)$", first, re.MULTILINE)
    assert [name for name, _ in commands] == ["db.list", "db.restore", "db.restore"]
    for name, options in commands:
        told = re.sub(r"--id=\S+", f"--id={found.manifest.id}", options)
        words = [word for word in told.split() if not word.startswith("--env")]
        words += [f"--confirm={site.name}"] if "--replace" in words else []
        command = site.invoke(name, *words)
        output = command.communicate(timeout=100)[0]
        assert command.returncode == 0, output
    assert count(site, database)[0] == 2000


Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut to half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "bytes, not"),
    "cut by a byte": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes, not"),
    "empty": (lambda p: p.write_bytes(b""), "has 0 bytes"),
    "one bit flipped": (flip, "SHA-256 of the archive differs"),
    "missing": (lambda p: p.unlink(), "cannot be read: No such file"),
}


def both_formats(site: BackupSite, database: str) -> list[BackupManifest]:
    first = make_backup(site.name, SILENT).manifest
    site.environment(database, **APART)
    return [first, make_backup(site.name, SILENT).manifest]


def test_a_damaged_archive_is_refused_without_changes(site: BackupSite, database: str):
    made = both_formats(site, database)
    paths = [site.backups / manifest.id / "archive" for manifest in made]
    whole = [path.read_bytes() for path in paths]
    for what, (damage, words) in DAMAGES.items():
        for path, content in zip(paths, whole):
            path.write_bytes(content)
            damage(path)
        for attempt in (
            lambda: verify_backup(site.name, SILENT, level="hash", id=made[0].id),
            lambda: restore_backup(site.name, SILENT, id=made[1].id, replace=True),
        ):
            with pytest.raises(DeployError, match=words) as caught:
                attempt()
            assert caught.value.exit_code == 5, what
    # With a matching hash in the manifest, the decompression fails.
    for path, content in zip(paths, whole):
        path.write_bytes(content[: len(content) // 2])
        agree(path)
    for number, level in ((0, "restored"), (1, "restored"), (1, "read")):
        with pytest.raises(DeployError, match="`zstd` ended with 1"):
            verify_backup(site.name, SILENT, id=made[number].id, level=level)
    assert only_live(site, database)
    assert [found.verification for found in list_backups(site.name, SILENT)] == [None, None]


def only_live(site: BackupSite, database: str) -> bool:
    """Whether the server has no database of this test except the live one."""
    with site.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        return connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def agree(archive: Path, **changes: object) -> None:
    """Write size, hash and `changes` of a changed archive to its manifest."""
    path, data = archive.with_name("manifest.json"), archive.read_bytes()
    told = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(json.loads(path.read_text()) | told | changes))


REPACK = """
cd /tmp && zstd -q -d </backups/archive | tar --extract
f=$(ls -S *.dat.zst | head -1); %s; cat * | wc -c
tar --create . | zstd -q >/backups/archive
"""


def test_a_directory_with_a_missing_or_truncated_file_is_refused(site: BackupSite, database: str):
    site.environment(database, **APART)
    manifest = make_backup(site.name, SILENT).manifest
    path = site.backups / manifest.id / "archive"
    whole, mounts = path.read_bytes(), {str(path.parent): {"bind": "/backups", "mode": "rw"}}
    for damage, refusals in (
        ("rm $f", {"restored": "bytes of files, but", "read": r"lacks \d+\.dat\.zst, which"}),
        # pg_restore accepts this one: the rows are fewer.
        (
            "truncate -s -9 $f",
            {"read": "file is damaged", "restored": "ledger has [0-9]+ rows, not"},
        ),
    ):
        path.write_bytes(whole)
        said = site.engine.containers.run(
            BASE, ["sh", "-ec", REPACK % damage], volumes=mounts, remove=True
        )
        for level, words in refusals.items():
            agree(path, **{} if words.startswith("bytes") else {"unpacked": int(said)})
            with pytest.raises(DeployError, match=words):
                verify_backup(site.name, SILENT, level=level)
    assert only_live(site, database) and site.partials() == []


def test_a_backup_of_another_environment_is_refused(site: BackupSite, database: str):
    manifest = make_backup(site.name, SILENT).manifest
    path = site.backups / manifest.id / "manifest.json"
    path.write_text(path.read_text().replace(site.name, "production"))
    with pytest.raises(DeployError, match=f"{manifest.id} of production"):
        restore_backup(site.name, SILENT, replace=True)
    path.write_text("{")
    with pytest.raises(DeployError, match="manifest of backup .* is damaged"):
        list_backups(site.name, SILENT)


def test_swapped_archives_are_refused(site: BackupSite, database: str):
    first = make_backup(site.name, SILENT).manifest
    with site.connect(database) as connection:
        connection.execute("INSERT INTO ledger (amount) VALUES (1)")
    second = make_backup(site.name, SILENT).manifest
    one, two = (site.backups / manifest.id / "archive" for manifest in (first, second))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    for manifest in (first, second):
        with pytest.raises(DeployError, match="bytes, not|SHA-256"):
            verify_backup(site.name, SILENT, id=manifest.id)


def test_a_different_sum_fails_the_restore(site: BackupSite, database: str):
    manifest = make_backup(site.name, SILENT).manifest
    path = site.backups / manifest.id / "manifest.json"
    path.write_text(path.read_text().replace('"amount":"200100000"', '"amount":"200100001"'))
    with pytest.raises(DeployError, match=r"sum of public.ledger.amount is 200100000, not"):
        restore_backup(site.name, SILENT)
    with site.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def test_a_backup_during_a_migration_is_refused(site: BackupSite, database: str):
    with site.connect(database) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [0x616D616E69])
        with pytest.raises(Locked, match="a migration, a backup or a restore is under way"):
            make_backup(site.name, SILENT)
    assert make_backup(site.name, SILENT).manifest.rows == 2001


def test_the_server_detects_a_lost_client(site: BackupSite, database: str):
    with PostgresAdmin(site.url(database)).locked() as connection:
        shown = [
            str((connection.execute(f"SHOW tcp_{name}").fetchone() or ("",))[0])
            for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")
        ]
    assert shown == ["10", "5", "4"]


def test_a_migration_during_a_restore_is_refused(
    site: BackupSite, database: str, monkeypatch: pytest.MonkeyPatch
):
    make_backup(site.name, SILENT)
    really, told = jobs.restore, []

    def migrate(*arguments: object) -> None:
        really(*arguments)  # between two jobs of the restore
        done = subprocess.run(
            [program("flask"), "db", "upgrade"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": site.url(database)},
            capture_output=True,
            text=True,
        )
        told.append((done.returncode, done.stderr))

    monkeypatch.setattr(jobs, "restore", migrate)
    restore_backup(site.name, SILENT, replace=True)
    ((status, words),) = told
    assert status == 1 and "Traceback" not in words
    assert "or a backup or a restore of it (pid" in words and "application amani-backup" in words
    with site.connect(database) as connection:  # released, and required again
        query = "SELECT pg_try_advisory_lock(%s)"
        assert connection.execute(query, [0x616D616E69]).fetchone() == (True,)
        with pytest.raises(Locked, match="a migration, a backup or a restore is under way"):
            restore_backup(site.name, SILENT, replace=True)
    assert len(told) == 1 and count(site, database)[0] == 2000


# A deployer that kills itself before or after a request to the backup container.
KILLED = """
import os, signal, sys
from deploy.backups.container import BackupContainer
from deploy.events import Events
from deploy.operations.backup import make_backup
from deploy.operations.restore import restore_backup
name, request, moment, job, id = sys.argv[1:]
send = BackupContainer._send

def die(when, asked):
    if (when, asked["job"]) == (moment, job):
        os.kill(os.getpid(), signal.SIGKILL)

def killed(self, asked):
    die("before", asked)
    answer = send(self, asked)
    die("begun", asked)
    return answer

BackupContainer._send = killed
if request == "backup":
    make_backup(name, Events())
else:
    restore_backup(name, Events(), id=id, replace=True)
"""
KILLS = [("backup", "before", "back-up"), ("backup", "begun", "back-up")]
KILLS += [("restore", "begun", "hold"), ("restore", "before", "restore")]
KILLS += [("restore", "begun", "restore"), ("restore", "begun", "restore")]
KILLS += [("restore", "begun", "back-up"), ("restore", "before", "swap")]

# Blocks every inserted row, also in a restore, while a role of that name exists.
HELD_ROWS = """
CREATE FUNCTION passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    WHILE EXISTS (SELECT FROM pg_roles WHERE rolname = 'hold_{0}') LOOP PERFORM pg_sleep(0.05);
    END LOOP; RETURN true; END $$;
ALTER TABLE ledger ADD CHECK (passes());
"""
# Conditions at which a restore or a swap is blocked, with the statements that block and release.
HOLDS = {
    "state = 'active' AND query LIKE 'COPY %' AND datname LIKE '{}_restoring_%'": (
        "CREATE ROLE hold_{}",
        "DROP ROLE hold_{}",
    ),
    "wait_event_type = 'Lock' AND query LIKE 'ALTER DATABASE%{}%RENAME%'": (
        "BEGIN; COMMENT ON DATABASE {} IS 'looked at'",
        "ROLLBACK",
    ),
}


def wait_for_session(site: BackupSite, condition: str) -> None:
    query = f"SELECT FROM pg_stat_activity WHERE {condition}"
    with site.connect("postgres") as look:
        eventually(lambda: look.execute(query).fetchone() is not None)


def test_a_deployer_killed_at_any_step_loses_no_data(site: BackupSite, database: str):
    with site.connect(database) as connection:
        connection.execute(HELD_ROWS.format(database))
    ids = [made.id for made in both_formats(site, database)]
    with site.connect(database) as connection:
        connection.execute("DELETE FROM ledger WHERE id > 5")

    def require_whole(swapped: int = 5) -> None:
        # The program ends its job; a swap is done completely or not at all.
        eventually(lambda: not site.tools() or site.in_tool(WORKS)[0] == 0)
        assert count(site, database)[0] in (5, swapped)

    for number, (request, moment, job) in enumerate(KILLS):
        argv = [sys.executable, "-c", KILLED, site.name, request, moment, job, ids[number % 2]]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (request, moment, job, done.stderr)
        require_whole()
    for id, (condition, (hold, release)) in zip(ids, HOLDS.items(), strict=True):
        with site.connect("postgres") as connection:
            connection.execute(hold.format(database))
            command = site.invoke("db.restore", "--replace", f"--id={id}", f"--confirm={site.name}")
            wait_for_session(site, condition.format(database))
            command.kill()
            command.communicate()
            connection.execute(release.format(database))
        require_whole(2000)
    for found in list_backups(site.name, SILENT):
        verify_backup(site.name, SILENT, id=found.manifest.id, level="hash")
    restore_backup(site.name, SILENT, id=ids[0], replace=True)
    assert count(site, database)[0] == 2000
    assert site.partials() == [] and site.tools() == []
    _, dropped = prune_backups(site.name, SILENT, databases=True)
    with site.connect("postgres") as connection:
        query = "SELECT datname FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchall() == [(database,)], dropped


def test_a_backup_without_free_space_is_refused(site: BackupSite, database: str):
    manifest = make_backup(site.name, SILENT).manifest
    path = site.backups / manifest.id / "manifest.json"
    content = json.loads(path.read_text()) | {"size": 10**18}
    path.write_text(json.dumps(content))
    with pytest.raises(GateRefused, match="MB are free for backups, and"):
        make_backup(site.name, SILENT)
    # Enough for an archive, but not also for the files of several jobs.
    content["size"] = round(shutil.disk_usage(site.backups).free / 1.8)
    path.write_text(json.dumps(content))
    site.environment(database, **APART)
    with pytest.raises(GateRefused, match="several jobs dump into files beside the archive"):
        make_backup(site.name, SILENT)
    assert len(list_backups(site.name, SILENT)) == 1 and site.partials() == []


@pytest.fixture
def small_disk(site: BackupSite) -> Iterator[Path]:
    """A folder on a file system of 512 KiB."""
    folder = site.folder / f"small-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size=512k,mode=700,uid={os.getuid()}", "small"]
    subprocess.run([*rights, *mount, str(folder)], check=True)
    yield folder
    subprocess.run([*rights, "umount", str(folder)], check=True)


def test_a_full_disk_fails_the_backup_and_keeps_the_others(
    site: BackupSite, database: str, small_disk: Path
):
    site.environment(database, directory=str(small_disk))
    manifest = make_backup(site.name, SILENT).manifest
    with site.connect(database) as connection:
        connection.execute(
            "INSERT INTO ledger (amount, note)"
            " SELECT 1, md5(random()::text) || md5(random()::text) FROM generate_series(1, 20000)"
        )
    for settings in ({}, APART):
        site.environment(database, directory=str(small_disk), **settings)
        with pytest.raises(DeployError, match="No space left on device") as caught:
            make_backup(site.name, SILENT)
        assert caught.value.exit_code == 5 and "free some space" in caught.value.hint
    assert not list(small_disk.glob("*.partial"))
    assert [found.manifest for found in list_backups(site.name, SILENT)] == [manifest]
    assert verify_backup(site.name, SILENT).level == "restored"


def test_an_unreachable_server_and_a_wrong_password_are_reported(site: BackupSite, database: str):
    secrets = site.folder / f".env.{site.name}"
    right = secrets.read_text()
    for wrong, words in (
        (right.replace(PASSWORD, "mellon-8"), "password authentication failed"),
        (right.replace(":5432", ":5433"), "Connection refused"),
    ):
        secrets.write_text(wrong)
        with pytest.raises(DeployError, match=words) as caught:
            make_backup(site.name, SILENT)
        assert "mellon-8" not in str(caught.value) and caught.value.hint
    assert site.partials() == []


WORKS = """
import glob, sys
names = [open(path).read() for path in glob.glob('/proc/[0-9]*/cmdline')]
sys.exit(any('tool.' + 'pyz' in name or 'pg_' + 'restore' in name for name in names))
"""
KILL = """
import glob, os, signal
for path in glob.glob('/proc/[0-9]*/comm'):
    name = open(path).read().strip()
    if name == '%s': os.kill(int(path.split('/')[2]), signal.SIGKILL)
"""


@pytest.mark.parametrize("victim", ["pg_dump", "zstd", "age"])
def test_a_killed_process_of_the_dump_fails_the_backup(
    site: BackupSite, database: str, held_dump, victim: str
):
    key = pyrage.x25519.Identity.generate()
    site.environment(database, recipients=[str(key.to_public())])
    command = site.invoke("db.backup")
    wait_for_dump(site, database)
    assert site.in_tool(KILL % victim)[0] == 0
    if victim != "pg_dump":  # the failure shows at the next write
        held_dump.execute("ROLLBACK")
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and f"`{victim}` was killed by SIGKILL" in output
    assert site.partials() == [] and list_backups(site.name, SILENT) == []


def test_a_terminated_session_fails_the_backup(site: BackupSite, database: str, held_dump):
    command = site.invoke("db.backup")
    wait_for_dump(site, database)
    with site.connect("postgres") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%%'",
            [database],
        )
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and "`pg_dump` ended with 1" in output
    assert site.partials() == [] and list_backups(site.name, SILENT) == []


NAMED = """
import glob, os
files = glob.glob('/backups/*.partial/**', recursive=True)
named = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
held = set()
for path in glob.glob('/proc/[0-9]*/fd/*'):
    try:
        if os.readlink(path).startswith('/backups/') and not os.stat(path).st_nlink:
            held.add((os.stat(path).st_ino, os.stat(path).st_size))
    except FileNotFoundError: pass
print(named, sum(size for _, size in held))
"""


def test_several_jobs_leave_no_rows_on_the_disk_after_a_failure(
    site: BackupSite, database: str, held_rows
):
    key = pyrage.x25519.Identity.generate()
    site.environment(database, recipients=[str(key.to_public())], **APART)

    def all_are_unlinked() -> bool:
        named, unlinked = map(int, site.in_tool(NAMED)[1].split())
        return named == 0 and unlinked > 500_000

    command = site.invoke("db.backup")
    wait_for_dump(site, database, "COPY")
    eventually(all_are_unlinked)
    with site.connect("postgres") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'COPY%%'",
            [database],
        )
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and "`pg_dump` ended with 1" in output
    assert site.partials() == []

    command = site.invoke("db.backup")
    wait_for_dump(site, database, "COPY")
    eventually(all_are_unlinked)
    site.tools()[0].kill()  # as at a power failure: the unlinked files are gone
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5, output
    assert len(site.partials()) == 1
    held_rows.execute("ROLLBACK")
    assert make_backup(site.name, SILENT).manifest.tables["public.letters"]["rows"] == 50_001
    assert site.partials() == [] and site.tools() == []


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_killed_deployer_leaves_nothing_and_the_next_backup_succeeds(
    site: BackupSite, database: str, held_dump, how: str
):
    command = site.invoke("db.backup")
    wait_for_dump(site, database)
    command.send_signal(getattr(signal, how))
    output = command.communicate(timeout=100)[0]
    assert command.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130), output
    eventually(lambda: not site.partials())
    held_dump.execute("ROLLBACK")
    assert list_backups(site.name, SILENT) == []
    assert make_backup(site.name, SILENT).manifest.rows == 2001
    assert site.tools() == []


def test_an_unknown_backup_and_an_unknown_level_are_refused(site: BackupSite, database: str):
    with pytest.raises(UsageError, match="has no backup"):
        verify_backup(site.name, SILENT)
    make_backup(site.name, SILENT)
    with pytest.raises(UsageError, match="has no backup 'x'"):
        restore_backup(site.name, SILENT, id="x")
    with pytest.raises(UsageError, match="there is no level 'best'"):
        verify_backup(site.name, SILENT, level="best")  # type: ignore[arg-type]
    with pytest.raises(GateRefused, match="there is no live release"):
        run_drill(site.name, SILENT)


def test_the_status_of_a_managed_server_comes_from_its_connection(site: BackupSite, database: str):
    with site.connect(database) as connection:
        connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    secrets = site.folder / f".env.{site.name}"
    secrets.write_text(secrets.read_text().replace("//amani:", "//guest:"))
    try:
        found = recovery_status(site.name, SILENT)
    finally:
        with site.connect(database) as connection:
            connection.execute("DROP ROLE guest")
    rows = dict(found.rows)
    assert rows["connected as"] == "guest (no special rights)"
    assert rows["archive_mode"] == "off" and rows["wal_level"] == "replica"
    assert "archive_mode is off" in found.problems[0]
    assert "permission denied" in found.hidden[0] and "points in time" in found.hidden[1]
    with pytest.raises(UsageError, match="has no configuration for point-in-time recovery"):
        set_up_archiving(site.name, SILENT, confirm=lambda question: None)


def test_sqlite_has_no_point_in_time_recovery(site: BackupSite):
    site.environment()
    with pytest.raises(UsageError, match="is no PostgreSQL"):
        recovery_status(site.name, SILENT)
