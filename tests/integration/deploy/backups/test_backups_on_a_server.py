"""Backups on a real server: made, proved, restored."""

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

from deploy.backups import work
from deploy.backups.manifest import Manifest
from deploy.backups.program.server import Server
from deploy.backups.tool import BASE, archive_program
from deploy.errors import DeployError, GateRefused, Locked, UsageError
from deploy.events import Event, Events
from deploy.machine.checkout import ROOT, program
from deploy.operations.backups import back_up, drill, listing, prune, restore, verify
from deploy.operations.pitr import setup, status
from tests.integration.deploy.backups.conftest import APART, PASSWORD, SILENT, Place, wait_for_dump
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine


def count(place: Place, database: str) -> tuple[int, int]:
    with place.connect(database) as connection:
        row = connection.execute("SELECT count(*), sum(amount) FROM ledger").fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def test_a_backup_tells_what_it_holds(place: Place, database: str):
    heard: list[Event] = []
    manifest = back_up(place.name, Events(heard.append)).manifest
    assert manifest.tables["public.ledger"] == {
        "rows": 2000,
        "sums": {"id": "2001000", "amount": "200100000"},
    }
    assert (manifest.revision, manifest.environment, manifest.host) == ("0007", place.name, "here")
    folder = place.backups / manifest.id
    assert (folder / "archive").stat().st_size == manifest.size
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert [found.manifest for found in listing(place.name, SILENT)] == [manifest]
    told = [event.text for event in heard if event.kind == "step-progress"]
    assert told and all(re.match(r"\w*: [\d,.]+ MB, [\d,.]+ MB/s", text) for text in told)
    assert (manifest.format, manifest.jobs, manifest.unpacked) == ("custom", 1, 0)
    place.environment(database, **APART)
    apart = back_up(place.name, SILENT).manifest
    assert (apart.format, apart.jobs, apart.unpacked > 0) == ("directory", 2, True)
    assert apart.tables == manifest.tables
    assert place.partials() == [] and place.tools() == []


def test_a_backup_is_proved_by_a_restore_that_leaves_nothing_behind(place: Place, database: str):
    made = back_up(place.name, SILENT).manifest
    forget(place.backups / made.id / "manifest.json", "format", "jobs", "unpacked")
    with place.connect("postgres") as connection:  # as one that was killed leaves it
        connection.execute(f"CREATE DATABASE {database}_restoring_1")
    assert verify(place.name, SILENT, level="hash").level == "hash"
    assert verify(place.name, SILENT, level="read").level == "read"
    assert verify(place.name, SILENT).level == "restored"
    verify(place.name, SILENT, level="hash")
    (found,) = listing(place.name, SILENT)
    assert found.proof and found.proof.level == "restored"
    metrics = (place.backups / "metrics.prom").read_text()
    assert f"{found.manifest.taken:.0f}" in metrics
    with place.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def forget(path: Path, *names: str) -> None:
    """As it was written before a manifest told these."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in content if key not in names}))


@pytest.mark.parametrize("settings", [{}, APART], ids=["custom", "directory"])
def test_an_encrypted_backup_opens_with_its_key_alone(
    place: Place, database: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
):
    key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    place.environment(database, recipients=[str(key.to_public())], **settings)
    manifest = back_up(place.name, SILENT).manifest
    archive = (place.backups / manifest.id / "archive").read_bytes()
    assert archive.startswith(b"age-encryption.org/v1")
    with pytest.raises(UsageError, match="is encrypted"):
        verify(place.name, SILENT)
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(other))
    with pytest.raises(DeployError, match="`age` ended with 1"):
        verify(place.name, SILENT, level="read")
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(key))
    assert verify(place.name, SILENT).level == "restored"


def test_no_secret_is_in_an_argument_or_in_the_containers_description(
    place: Place, database: str, held_dump, monkeypatch: pytest.MonkeyPatch
):
    command = place.invoke("db.backup")
    wait_for_dump(place, database)
    (tool,) = place.tools()
    listed = place.in_tool(
        "import glob\n" "for path in glob.glob('/proc/[0-9]*/cmdline'): print(open(path).read())"
    )[1]
    assert "pg_dump" in listed
    assert PASSWORD not in listed + json.dumps(tool.attrs)
    held_dump.execute("ROLLBACK")
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 0 and PASSWORD not in output


def test_everything_acknowledged_before_the_snapshot_comes_back_after_the_database_is_lost(
    place: Place, database: str
):
    acknowledged: list[tuple[float, int]] = []
    stop = threading.Event()

    def write() -> None:
        with place.connect(database) as connection:
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
        manifest = back_up(place.name, SILENT).manifest
    finally:
        stop.set()
        writer.join(60)
    assert len(acknowledged) > manifest.tables["public.ledger"]["rows"] - 2000  # it wrote on
    with place.connect("postgres") as connection:
        connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    done = restore(place.name, SILENT, replace=True)
    assert done.before == "none"
    rows, total = count(place, database)
    ledger = manifest.tables["public.ledger"]
    assert (str(rows), str(total)) == (str(ledger["rows"]), ledger["sums"]["amount"])
    with place.connect(database) as connection:
        there = {row[0] for row in connection.execute("SELECT id FROM ledger").fetchall()}
    assert {id for at, id in acknowledged if at < asked} <= there


def test_a_restore_leaves_the_live_database_alone_unless_told_to_replace_it(
    place: Place, database: str
):
    back_up(place.name, SILENT)
    with place.connect(database) as connection:
        connection.execute("DELETE FROM ledger WHERE id > 5")
    beside = restore(place.name, SILENT)
    assert count(place, database)[0] == 5 and count(place, beside.database)[0] == 2000
    asked: list[str] = []
    id = beside.backup.manifest.id
    done = restore(place.name, SILENT, id=id, replace=True, confirm=asked.append)
    assert asked == [f"replace the database of {place.name} by backup {id}?"]
    assert count(place, database)[0] == 2000 and count(place, done.before)[0] == 5
    reasons = [found.manifest.reason for found in listing(place.name, SILENT)]
    assert reasons == ["asked", "restore"]
    _, dropped = prune(place.name, SILENT, databases=True)
    assert {beside.database, done.before} <= set(dropped)
    assert count(place, database)[0] == 2000


def test_a_database_somebody_uses_is_replaced_all_the_same(place: Place, database: str):
    back_up(place.name, SILENT)
    with place.connect(database) as used:
        used.execute("DELETE FROM ledger")
        restore(place.name, SILENT, replace=True)
        assert used.pgconn.status is not None
    assert count(place, database)[0] == 2000


def test_sqlite_is_backed_up_while_it_is_written_and_comes_back(place: Place):
    place.environment()
    image = "python:3.13-slim-trixie"
    volume = {f"amani-{place.name}-data": {"bind": "/data", "mode": "rw"}}
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
    writer = place.engine.containers.run(
        image, ["python3", "-c", script], volumes=volume, detach=True
    )
    try:
        eventually(lambda: b"going" in writer.logs())
        manifest = back_up(place.name, SILENT).manifest
        assert verify(place.name, SILENT).level == "restored"
    finally:
        writer.remove(force=True)
    entries = manifest.tables["entry"]
    assert entries["rows"] >= 500
    assert entries["sums"]["amount"] == manifest.tables["total"]["sums"]["amount"]
    place.engine.containers.run(
        image, ["sh", "-c", "echo rubbish >/data/amani.sqlite3"], volumes=volume, remove=True
    )
    with pytest.raises(DeployError, match="malformed|not a database"):
        back_up(place.name, SILENT)
    place.engine.containers.run(
        image, ["sh", "-c", "rm /data/amani.sqlite3*"], volumes=volume, remove=True
    )
    with pytest.raises(UsageError, match="there is no database"):
        back_up(place.name, SILENT)
    assert place.partials() == []

    # The service is stopped for the swap, and started by the next run where this one is killed.
    labels = {"amani.environment": place.name, "amani.role": "web"}
    serving = "trap exit TERM; while :; do sleep 0.1; done"
    web = place.engine.containers.run(image, ["sh", "-c", serving], labels=labels, detach=True)
    argv = [sys.executable, "-c", KILLED, place.name, "restore", "before", "swap", manifest.id]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    web.reload()
    assert (done.returncode, web.status) == (-signal.SIGKILL, "exited"), done.stderr
    restore(place.name, SILENT, replace=True)
    web.reload()
    assert web.status == "running" and not (place.backups / "stopped").exists()
    again = back_up(place.name, SILENT).manifest
    assert again.tables == manifest.tables
    files = {path.name for path in (place.backups / again.id).iterdir()}
    assert files == {"archive", "manifest.json"}


def test_pruning_keeps_what_the_rules_keep(place: Place, database: str):
    place.environment(database, keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0})
    first, second = (back_up(place.name, SILENT).manifest.id for _ in range(2))
    gone, _ = prune(place.name, SILENT, dry_run=True)
    assert [found.manifest.id for found in gone] == [first]
    assert len(listing(place.name, SILENT)) == 2
    prune(place.name, SILENT)
    assert [found.manifest.id for found in listing(place.name, SILENT)] == [second]


def test_the_program_is_the_same_file_every_time():
    assert archive_program() == archive_program()


def test_the_commands_of_the_guide_bring_the_data_back(place: Place, database: str):
    back_up(place.name, SILENT)
    verify(place.name, SILENT)
    with place.connect(database) as connection:
        connection.execute("DROP TABLE ledger")
    (found,) = listing(place.name, SILENT)
    guide = (ROOT / "docs" / "backups.md").read_text().partition("## How a backup is made")[0]
    commands = re.findall(r"^ +\./inv (db\.\S+)(.*)$", guide, re.MULTILINE)
    assert [name for name, _ in commands] == ["db.list", "db.restore", "db.restore"]
    for name, options in commands:
        told = re.sub(r"--id=\S+", f"--id={found.manifest.id}", options)
        words = [word for word in told.split() if not word.startswith("--env")]
        words += [f"--confirm={place.name}"] if "--replace" in words else []
        command = place.invoke(name, *words)
        output = command.communicate(timeout=100)[0]
        assert command.returncode == 0, output
    assert count(place, database)[0] == 2000


Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut to half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "bytes and"),
    "cut by a byte": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes and not"),
    "empty": (lambda p: p.write_bytes(b""), "has 0 bytes"),
    "one bit flipped": (flip, "its SHA-256 is another"),
    "missing": (lambda p: p.unlink(), "cannot be read: No such file"),
}


def both_formats(place: Place, database: str) -> list[Manifest]:
    """A backup in each format."""
    first = back_up(place.name, SILENT).manifest
    place.environment(database, **APART)
    return [first, back_up(place.name, SILENT).manifest]


def test_a_damaged_archive_is_refused_and_changes_nothing(place: Place, database: str):
    made = both_formats(place, database)
    paths = [place.backups / manifest.id / "archive" for manifest in made]
    whole = [path.read_bytes() for path in paths]
    for what, (damage, words) in DAMAGES.items():
        for path, content in zip(paths, whole):
            path.write_bytes(content)
            damage(path)
        for attempt in (
            lambda: verify(place.name, SILENT, level="hash", id=made[0].id),
            lambda: restore(place.name, SILENT, id=made[1].id, replace=True),
        ):
            with pytest.raises(DeployError, match=words) as caught:
                attempt()
            assert caught.value.exit_code == 5, what
    # And where its hash was changed, too: what opens it finds that.
    for path, content in zip(paths, whole):
        path.write_bytes(content[: len(content) // 2])
        agree(path)
    for number, level in ((0, "restored"), (1, "restored"), (1, "read")):
        with pytest.raises(DeployError, match="`zstd` ended with 1"):
            verify(place.name, SILENT, id=made[number].id, level=level)
    assert only_live(place, database)
    assert [found.proof for found in listing(place.name, SILENT)] == [None, None]


def only_live(place: Place, database: str) -> bool:
    """Whether there is no other database than the live one."""
    with place.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        return connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def agree(archive: Path, **changes: object) -> None:
    """Let the manifest agree with an archive that was changed."""
    path, data = archive.with_name("manifest.json"), archive.read_bytes()
    told = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(json.loads(path.read_text()) | told | changes))


REPACK = """
cd /tmp && zstd -q -d </backups/archive | tar --extract
f=$(ls -S *.dat.zst | head -1); %s; cat * | wc -c
tar --create . | zstd -q >/backups/archive
"""


def test_a_directory_in_which_a_file_is_missing_or_cut_is_refused(place: Place, database: str):
    place.environment(database, **APART)
    manifest = back_up(place.name, SILENT).manifest
    path = place.backups / manifest.id / "archive"
    whole, mounts = path.read_bytes(), {str(path.parent): {"bind": "/backups", "mode": "rw"}}
    for damage, refusals in (
        ("rm $f", {"restored": "bytes of files, and", "read": r"lacks \d+\.dat\.zst, which"}),
        # pg_restore takes no offence at this one; the rows are fewer.
        (
            "truncate -s -9 $f",
            {"read": "file is damaged", "restored": "ledger has [0-9]+ rows and"},
        ),
    ):
        path.write_bytes(whole)
        said = place.engine.containers.run(
            BASE, ["sh", "-ec", REPACK % damage], volumes=mounts, remove=True
        )
        for level, words in refusals.items():
            agree(path, **{} if words.startswith("bytes") else {"unpacked": int(said)})
            with pytest.raises(DeployError, match=words):
                verify(place.name, SILENT, level=level)
    assert only_live(place, database) and place.partials() == []


def test_a_backup_of_another_environment_is_refused(place: Place, database: str):
    manifest = back_up(place.name, SILENT).manifest
    path = place.backups / manifest.id / "manifest.json"
    path.write_text(path.read_text().replace(place.name, "production"))
    with pytest.raises(DeployError, match=f"{manifest.id} of production"):
        restore(place.name, SILENT, replace=True)
    path.write_text("{")
    with pytest.raises(DeployError, match="manifest of backup .* is damaged"):
        listing(place.name, SILENT)


def test_archives_that_changed_places_are_refused(place: Place, database: str):
    first = back_up(place.name, SILENT).manifest
    with place.connect(database) as connection:
        connection.execute("INSERT INTO ledger (amount) VALUES (1)")
    second = back_up(place.name, SILENT).manifest
    one, two = (place.backups / manifest.id / "archive" for manifest in (first, second))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    for manifest in (first, second):
        with pytest.raises(DeployError, match="bytes and not|SHA-256"):
            verify(place.name, SILENT, id=manifest.id)


def test_a_wrong_amount_that_every_hash_agrees_with_is_found(place: Place, database: str):
    manifest = back_up(place.name, SILENT).manifest
    path = place.backups / manifest.id / "manifest.json"
    path.write_text(path.read_text().replace('"amount":"200100000"', '"amount":"200100001"'))
    with pytest.raises(DeployError, match=r"sum of public.ledger.amount is 200100000, not"):
        restore(place.name, SILENT)
    with place.connect("postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchone() == (1,)


def test_it_waits_for_no_migration(place: Place, database: str):
    with place.connect(database) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [0x616D616E69])
        with pytest.raises(Locked, match="a migration, a backup or a restore is under way"):
            back_up(place.name, SILENT)
    assert back_up(place.name, SILENT).manifest.rows == 2001


def test_a_host_that_is_gone_does_not_keep_the_lock_for_long(place: Place, database: str):
    with Server(place.url(database)).locked() as connection:
        shown = [
            str((connection.execute(f"SHOW tcp_{name}").fetchone() or ("",))[0])
            for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")
        ]
    assert shown == ["10", "5", "4"]


def test_a_migration_during_a_restore_is_refused(
    place: Place, database: str, monkeypatch: pytest.MonkeyPatch
):
    back_up(place.name, SILENT)
    really, told = work.restore, []

    def migrate(*arguments: object) -> None:
        really(*arguments)  # between two jobs of the restore, of which neither takes the lock
        done = subprocess.run(
            [program("flask"), "db", "upgrade"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": place.url(database)},
            capture_output=True,
            text=True,
        )
        told.append((done.returncode, done.stderr))

    monkeypatch.setattr(work, "restore", migrate)
    restore(place.name, SILENT, replace=True)
    ((status, words),) = told
    assert status == 1 and "Traceback" not in words
    assert "or a backup or a restore of it (pid" in words and "application amani-backup" in words
    with place.connect(database) as connection:  # given back, and asked for
        query = "SELECT pg_try_advisory_lock(%s)"
        assert connection.execute(query, [0x616D616E69]).fetchone() == (True,)
        with pytest.raises(Locked, match="a migration, a backup or a restore is under way"):
            restore(place.name, SILENT, replace=True)
    assert len(told) == 1 and count(place, database)[0] == 2000


# What a deployer does around each question to the program that makes and restores backups.
KILLED = """
import os, signal, sys
from deploy.backups.tool import Tool
from deploy.events import Events
from deploy.operations.backups import back_up, restore
name, request, moment, job, id = sys.argv[1:]
ask = Tool._ask

def die(when, asked):
    if (when, asked["job"]) == (moment, job):
        os.kill(os.getpid(), signal.SIGKILL)

def killed(self, asked):
    die("before", asked)
    answer = ask(self, asked)
    die("begun", asked)
    return answer

Tool._ask = killed
back_up(name, Events()) if request == "backup" else restore(name, Events(), id=id, replace=True)
"""
KILLS = [("backup", "before", "back-up"), ("backup", "begun", "back-up")]
KILLS += [("restore", "begun", "hold"), ("restore", "before", "restore")]
KILLS += [("restore", "begun", "restore"), ("restore", "begun", "restore")]
KILLS += [("restore", "begun", "back-up"), ("restore", "before", "swap")]

# Holds every row that comes in, in a restore too, for as long as a role of that name is there.
HELD_ROWS = """
CREATE FUNCTION passes() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    WHILE EXISTS (SELECT FROM pg_roles WHERE rolname = 'hold_{0}') LOOP PERFORM pg_sleep(0.05);
    END LOOP; RETURN true; END $$;
ALTER TABLE ledger ADD CHECK (passes());
"""
# What holds an exchange by rename in its middle, and a restore before it, until it is undone.
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


def wait_for_session(place: Place, condition: str) -> None:
    query = f"SELECT FROM pg_stat_activity WHERE {condition}"
    with place.connect("postgres") as look:
        eventually(lambda: look.execute(query).fetchone() is not None)


def test_a_deployer_killed_at_any_step_of_a_backup_and_a_restore_loses_nothing(
    place: Place, database: str
):
    with place.connect(database) as connection:
        connection.execute(HELD_ROWS.format(database))
    ids = [made.id for made in both_formats(place, database)]
    with place.connect(database) as connection:
        connection.execute("DELETE FROM ledger WHERE id > 5")

    def require_whole(swapped: int = 5) -> None:
        # The program notices, and ends what it had begun; a swap is whole or has not been.
        eventually(lambda: not place.tools() or place.in_tool(WORKS)[0] == 0)
        assert count(place, database)[0] in (5, swapped)

    for number, (request, moment, job) in enumerate(KILLS):
        argv = [sys.executable, "-c", KILLED, place.name, request, moment, job, ids[number % 2]]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, (request, moment, job, done.stderr)
        require_whole()
    for id, (condition, (hold, release)) in zip(ids, HOLDS.items(), strict=True):
        with place.connect("postgres") as connection:
            connection.execute(hold.format(database))
            command = place.invoke(
                "db.restore", "--replace", f"--id={id}", f"--confirm={place.name}"
            )
            wait_for_session(place, condition.format(database))
            command.kill()
            command.communicate()
            connection.execute(release.format(database))
        require_whole(2000)
    for found in listing(place.name, SILENT):
        verify(place.name, SILENT, id=found.manifest.id, level="hash")
    restore(place.name, SILENT, id=ids[0], replace=True)
    assert count(place, database)[0] == 2000
    assert place.partials() == [] and place.tools() == []
    _, dropped = prune(place.name, SILENT, databases=True)
    with place.connect("postgres") as connection:
        query = "SELECT datname FROM pg_database WHERE datname LIKE %s"
        assert connection.execute(query, [f"{database}%"]).fetchall() == [(database,)], dropped


def test_too_little_room_is_refused_before_anything_is_written(place: Place, database: str):
    manifest = back_up(place.name, SILENT).manifest
    path = place.backups / manifest.id / "manifest.json"
    content = json.loads(path.read_text()) | {"size": 10**18}
    path.write_text(json.dumps(content))
    with pytest.raises(GateRefused, match="MB are free for backups, and"):
        back_up(place.name, SILENT)
    # Enough for an archive, but not for the files of several jobs beside it.
    content["size"] = round(shutil.disk_usage(place.backups).free / 1.8)
    path.write_text(json.dumps(content))
    place.environment(database, **APART)
    with pytest.raises(GateRefused, match="several jobs dump into files beside the archive"):
        back_up(place.name, SILENT)
    assert len(listing(place.name, SILENT)) == 1 and place.partials() == []


@pytest.fixture
def small_disk(place: Place) -> Iterator[Path]:
    """A folder on a disk of half a megabyte."""
    folder = place.folder / f"small-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size=512k,mode=700,uid={os.getuid()}", "small"]
    subprocess.run([*rights, *mount, str(folder)], check=True)
    yield folder
    subprocess.run([*rights, "umount", str(folder)], check=True)


def test_a_full_disk_fails_the_backup_and_leaves_what_was_there(
    place: Place, database: str, small_disk: Path
):
    place.environment(database, directory=str(small_disk))
    manifest = back_up(place.name, SILENT).manifest
    with place.connect(database) as connection:
        connection.execute(
            "INSERT INTO ledger (amount, note)"
            " SELECT 1, md5(random()::text) || md5(random()::text) FROM generate_series(1, 20000)"
        )
    for settings in ({}, APART):
        place.environment(database, directory=str(small_disk), **settings)
        with pytest.raises(DeployError, match="No space left on device") as caught:
            back_up(place.name, SILENT)
        assert caught.value.exit_code == 5 and "make room" in caught.value.hint
    assert not list(small_disk.glob("*.partial"))
    assert [found.manifest for found in listing(place.name, SILENT)] == [manifest]
    assert verify(place.name, SILENT).level == "restored"


def test_a_server_that_is_away_and_a_wrong_password_are_told(place: Place, database: str):
    secrets = place.folder / f".env.{place.name}"
    right = secrets.read_text()
    for wrong, words in (
        (right.replace(PASSWORD, "mellon-8"), "password authentication failed"),
        (right.replace(":5432", ":5433"), "Connection refused"),
    ):
        secrets.write_text(wrong)
        with pytest.raises(DeployError, match=words) as caught:
            back_up(place.name, SILENT)
        assert "mellon-8" not in str(caught.value) and caught.value.hint
    assert place.partials() == []


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
def test_a_process_of_the_dump_that_is_killed_fails_it(
    place: Place, database: str, held_dump, victim: str
):
    key = pyrage.x25519.Identity.generate()
    place.environment(database, recipients=[str(key.to_public())])
    command = place.invoke("db.backup")
    wait_for_dump(place, database)
    assert place.in_tool(KILL % victim)[0] == 0
    if victim != "pg_dump":  # it notices once it writes
        held_dump.execute("ROLLBACK")
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and f"`{victim}` was ended by SIGKILL" in output
    assert place.partials() == [] and listing(place.name, SILENT) == []


def test_a_session_that_the_server_ends_fails_it(place: Place, database: str, held_dump):
    command = place.invoke("db.backup")
    wait_for_dump(place, database)
    with place.connect("postgres") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%%'",
            [database],
        )
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and "`pg_dump` ended with 1" in output
    assert place.partials() == [] and listing(place.name, SILENT) == []


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


def test_several_jobs_leave_no_rows_on_the_disk_whatever_ends_them(
    place: Place, database: str, held_rows
):
    key = pyrage.x25519.Identity.generate()
    place.environment(database, recipients=[str(key.to_public())], **APART)

    def all_are_nameless() -> bool:
        named, nameless = map(int, place.in_tool(NAMED)[1].split())
        return named == 0 and nameless > 500_000

    command = place.invoke("db.backup")
    wait_for_dump(place, database, "COPY")
    eventually(all_are_nameless)
    with place.connect("postgres") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'COPY%%'",
            [database],
        )
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5 and "`pg_dump` ended with 1" in output
    assert place.partials() == []

    command = place.invoke("db.backup")
    wait_for_dump(place, database, "COPY")
    eventually(all_are_nameless)
    place.tools()[0].kill()  # as the power goes: what has no name is gone
    output = command.communicate(timeout=100)[0]
    assert command.returncode == 5, output
    assert len(place.partials()) == 1
    held_rows.execute("ROLLBACK")
    assert back_up(place.name, SILENT).manifest.tables["public.letters"]["rows"] == 50_001
    assert place.partials() == [] and place.tools() == []


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_deployer_that_is_ended_leaves_nothing_and_the_next_one_goes_through(
    place: Place, database: str, held_dump, how: str
):
    command = place.invoke("db.backup")
    wait_for_dump(place, database)
    command.send_signal(getattr(signal, how))
    output = command.communicate(timeout=100)[0]
    assert command.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130), output
    eventually(lambda: not place.partials())
    held_dump.execute("ROLLBACK")
    assert listing(place.name, SILENT) == []
    assert back_up(place.name, SILENT).manifest.rows == 2001
    assert place.tools() == []


def test_an_unknown_backup_and_an_unknown_level_are_told(place: Place, database: str):
    with pytest.raises(UsageError, match="has no backup"):
        verify(place.name, SILENT)
    back_up(place.name, SILENT)
    with pytest.raises(UsageError, match="has no backup 'x'"):
        restore(place.name, SILENT, id="x")
    with pytest.raises(UsageError, match="there is no level 'best'"):
        verify(place.name, SILENT, level="best")  # type: ignore[arg-type]
    with pytest.raises(GateRefused, match="nothing serves"):
        drill(place.name, SILENT)


def test_of_a_managed_server_what_its_connection_tells_is_told(place: Place, database: str):
    with place.connect(database) as connection:
        connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    secrets = place.folder / f".env.{place.name}"
    secrets.write_text(secrets.read_text().replace("//amani:", "//guest:"))
    try:
        found = status(place.name, SILENT)
    finally:
        with place.connect(database) as connection:
            connection.execute("DROP ROLE guest")
    rows = dict(found.rows)
    assert rows["asked as"] == "guest (no special rights)"
    assert rows["archive_mode"] == "off" and rows["wal_level"] == "replica"
    assert "archive_mode is off" in found.problems[0]
    assert "permission denied" in found.hidden[0] and "which moments" in found.hidden[1]
    with pytest.raises(UsageError, match="says nothing of point-in-time recovery"):
        setup(place.name, SILENT, confirm=lambda question: None)


def test_sqlite_is_in_no_archive(place: Place):
    place.environment()
    with pytest.raises(UsageError, match="is no PostgreSQL"):
        status(place.name, SILENT)
