"""The lock: one holder, however many processes try, and a stale lock is taken over."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.errors import CommandFailed, Locked
from deploy.hosts.local import LocalHost
from deploy.state import journal, lock
from deploy.state.journal import Record
from deploy.state.lock import Holder, LockState
from tests.support.waiting import eventually

HOST = LocalHost("first")
ELSEWHERE = Holder("far", "bea@far", "deploy 3.0.0", 1_790_000_000.0, "far", 1, "another-kernel")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "environment")


def holder(id: str) -> Holder:
    return Holder.here(id, f"deploy {id}")


def put(folder: str, content: str | None, age: float = 0.0) -> Path:
    """Write a lock whose last heartbeat was `age` seconds ago; `None` omits the holder file."""
    place = Path(lock.path(folder))
    place.mkdir(parents=True)
    if content is not None:
        (place / "holder").write_text(content)
    beat = place.stat().st_mtime - age
    os.utime(place, (beat, beat))
    return place


def of(made: Holder) -> str:
    return json.dumps(dataclasses.asdict(made))


def dead() -> Holder:
    """A holder on this machine whose process has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return dataclasses.replace(holder("dead"), process=ended.pid)


def record(id: str, outcome: str = "abandoned") -> Record:
    return Record(
        id=id,
        kind="deploy",
        environment="test",
        hosts=("first",),
        version="1.0.0",
        digest="sha256:0",
        revision="abc",
        outcome=outcome,
        requested_by="ada",
        started=1.0,
        finished=2.0,
    )


def abandon(folder: str, entrusted: Record) -> None:
    """Leave the files of a run that was killed."""
    with lock.hold(HOST, folder, holder(entrusted.id)) as lease:
        lease.entrust(entrusted)
        place = Path(lock.path(folder))
        left = {path.name: path.read_text() for path in place.iterdir()}
    place.mkdir()
    for name, text in left.items():
        (place / name).write_text(of(dead()) if name == "holder" else text)


def history(folder: str) -> tuple[Record, ...]:
    return journal.parse(Path(journal.path(folder)).read_text())


def remains(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_held_lock_names_its_holder_and_is_released_after_the_block(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        found = lock.read(HOST, folder)
        assert found is not None and found.holder == lease.holder
        assert not found.stale
    assert lock.read(HOST, folder) is None
    assert remains(folder) == []


def test_second_run_is_rejected_with_holder_and_start_time(folder):
    with lock.hold(HOST, folder, dataclasses.replace(holder("a"), since=1_790_000_000.0)):
        with pytest.raises(Locked) as caught, lock.hold(HOST, folder, holder("b")):
            pass
        assert caught.value.exit_code == 4
        for part in (lock.describe_operator(), "deploy a", "2026-09-21 14:13:20 UTC"):
            assert part in caught.value.message
        assert remains(folder) == ["lock"]


def test_one_of_many_concurrent_runs_gets_the_lock(folder):
    together, inside, ended = threading.Barrier(12), [], threading.Event()

    def attempt(number: int) -> bool:
        together.wait(30)
        try:
            with lock.hold(HOST, folder, holder(f"run-{number}")):
                inside.append(number)
                ended.wait(30)
                return True
        except Locked:
            return False

    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(attempt, number) for number in range(12)]
        eventually(lambda: sum(future.done() for future in futures) == 11, 30)
        assert len(inside) == 1
        ended.set()
    assert sum(future.result() for future in futures) == 1
    assert remains(folder) == []


@pytest.mark.parametrize("left", ["dead", "torn", "missing", "silent"])
def test_one_of_many_runs_takes_over_a_stale_lock(folder, left):
    content = {"dead": of(dead()), "torn": '{"id": "x', "missing": None, "silent": of(ELSEWHERE)}
    put(folder, content[left], age=0.0 if left == "dead" else 3600.0)
    together, inside, ended = threading.Barrier(12), [], threading.Event()

    def attempt(number: int) -> None:
        together.wait(30)
        with lock.hold(HOST, folder, holder(f"run-{number}")) as lease:
            inside.append(lease.predecessor)
            ended.wait(30)

    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(attempt, number) for number in range(12)]
        eventually(lambda: sum(future.done() for future in futures) == 11, 30)
        ended.set()
    errors = [future.exception() for future in futures]
    assert sum(isinstance(error, Locked) for error in errors) == 11
    assert len(inside) == 1
    assert remains(folder) == []


def test_lock_of_another_machine_is_stale_without_heartbeat(folder):
    place = put(folder, of(ELSEWHERE), age=lock.STALE_AFTER - 10)
    found = lock.read(HOST, folder)
    assert found is not None and not found.stale
    with pytest.raises(Locked, match="bea@far on far .deploy 3.0.0. since 2026-"):
        lock.hold(HOST, folder, holder("b")).__enter__()
    beat = place.stat().st_mtime - 15
    os.utime(place, (beat, beat))
    with lock.hold(HOST, folder, holder("b")) as lease:
        assert lease.predecessor == ELSEWHERE


def test_lock_of_dead_local_process_is_stale_despite_fresh_heartbeat(folder):
    put(folder, of(dead()))
    found = lock.read(HOST, folder)
    assert found is not None and found.stale


def test_process_of_another_machine_is_not_checked_locally():
    assert not LockState(dataclasses.replace(dead(), boot="another-kernel"), 1.0).stale


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"id": "x"}', None])
def test_unreadable_holder_is_reported_as_unknown(folder, content):
    put(folder, content, age=3.0)
    found = lock.read(HOST, folder)
    assert found is not None and found.holder is None
    assert "an unknown holder, last heartbeat" in found.describe()
    assert not found.stale


def test_holder_written_by_newer_deployer_is_read(folder):
    put(folder, json.dumps({**dataclasses.asdict(ELSEWHERE), "mood": "calm"}))
    found = lock.read(HOST, folder)
    assert found is not None and found.holder == ELSEWHERE


def test_end_of_a_run_does_not_release_the_lock_of_another(folder):
    with lock.hold(HOST, folder, holder("a")):
        other = of(holder("other"))
        Path(lock.path(folder), "holder").write_text(other)
    assert Path(lock.path(folder), "holder").read_text() == other


def test_break_removes_only_the_lock_that_was_read(folder):
    put(folder, of(ELSEWHERE))
    for seen in (LockState(holder("gone"), 99.0), LockState(None, 99.0)):
        lock.break_lock(HOST, folder, seen)
        assert lock.read(HOST, folder) is not None
    lock.break_lock(HOST, folder, LockState(ELSEWHERE, 99.0))
    assert remains(folder) == []


@pytest.mark.parametrize("taken_away", ["by a successor", "by hand"])
def test_record_left_by_a_dead_run_is_journaled(folder, taken_away):
    abandon(folder, record("dead"))
    if taken_away == "by hand":
        lock.break_lock(HOST, folder, lock.read(HOST, folder))
    else:
        with lock.hold(HOST, folder, holder("b")):
            pass
    assert history(folder) == (record("dead"),)
    assert remains(folder) == ["journal.jsonl"]
    assert Path(journal.path(folder)).stat().st_mode & 0o777 == 0o600


def test_completed_run_is_journaled_once(folder):
    ended = record("dead", outcome="succeeded")
    journal.append(HOST, folder, ended)
    abandon(folder, record("dead"))
    with lock.hold(HOST, folder, holder("b")):
        pass
    assert history(folder) == (ended,)


def test_ended_run_leaves_no_record_to_journal(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        lease.entrust(record("a"))
    with lock.hold(HOST, folder, holder("b")):
        pass
    assert remains(folder) == []


def test_run_that_lost_its_lock_leaves_no_record(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        lease.entrust(record("a"))
        assert lease.lost.is_set()
        assert [path.name for path in Path(lock.path(folder)).iterdir()] == ["holder"]


def test_run_detects_loss_of_its_lock(folder, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with lock.hold(HOST, folder, holder("a")) as lease:
        assert not lease.lost.is_set()
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        assert lease.lost.wait(30)


def test_renew_detects_a_lost_lock_immediately(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        lease.renew()
        assert not lease.lost.is_set()
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        lease.renew()
        assert lease.lost.is_set()


def test_overdue_heartbeat_makes_the_run_check_its_lock(folder, monkeypatch):
    with lock.hold(HOST, folder, holder("a")) as lease:
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        overdue = time.time() + 3 * lock.HEARTBEAT
        monkeypatch.setattr(lock.time, "time", lambda: overdue)
        lease.confirm()
        assert lease.lost.is_set()


def test_heartbeat_is_renewed(folder, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with lock.hold(HOST, folder, holder("a")):
        place = Path(lock.path(folder))
        os.utime(place, (1.0, 1.0))
        eventually(lambda: place.stat().st_mtime > 1.0)


def test_deployer_suspended_while_locking_does_not_block_others(folder):
    argv = ("sh", "-c", lock._TAKE, "lock", lock.path(folder), "a", "99")
    suspended = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        eventually(lambda: (Path(folder) / "lock.a" / "holder").exists())
        with lock.hold(HOST, folder, holder("b")):
            assert remains(folder) == ["lock", "lock.a"]
    finally:
        suspended.communicate(timeout=10)
    assert suspended.returncode == 1
    assert remains(folder) == []


def test_holder_is_reported_during_a_suspended_update(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        argv = ("sh", "-c", lock._ENTRUST, "lock", lock.path(folder), '"id": "a"', "99")
        suspended = subprocess.Popen(argv, stdin=subprocess.PIPE)
        try:
            eventually(lambda: len(remains(folder)) == 2)
            with pytest.raises(Locked, match="deploy a"), lock.hold(HOST, folder, holder("b")):
                pass
        finally:
            suspended.communicate(b"torn", timeout=10)
        assert suspended.returncode == 1
        assert not Path(lock.path(folder), "record").exists()
        lease.entrust(record("a"))
        assert Path(lock.path(folder), "record").read_bytes() == record("a").line()
    assert remains(folder) == []


def test_lock_changing_for_too_long_counts_as_held(folder, monkeypatch):
    for script in ("_TAKE", "_BREAK"):
        impatient = getattr(lock, script).replace("flock -w 10", "flock -w 0")
        monkeypatch.setattr(lock, script, impatient)
    put(folder, of(dead()))
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        for attempt in (
            lambda: lock.break_lock(HOST, folder, LockState(dead(), 99.0)),
            lambda: lock.hold(HOST, folder, holder("b")).__enter__(),
        ):
            with pytest.raises(Locked, match="first: another command has been changing the lock"):
                attempt()
    finally:
        os.close(other)
    with lock.hold(HOST, folder, holder("b")):
        assert remains(folder) == ["lock"]


def test_deployer_killed_while_locking_leaves_no_lock(folder):
    text = of(holder("a")).encode()
    argv = ("sh", "-c", lock._TAKE, "lock", lock.path(folder), "a", str(len(text)))
    with pytest.raises(CommandFailed):
        HOST.run(argv, stdin=text[:20])
    assert remains(folder) == []
