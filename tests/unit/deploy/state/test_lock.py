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
    """A lock whose last heartbeat was `age` seconds ago; None: without a holder's file."""
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
    """Leave what a run leaves that is killed at work."""
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


def test_a_held_lock_says_who_holds_it_and_is_gone_after_the_block(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        found = lock.read(HOST, folder)
        assert found is not None and found.holder == lease.holder
        assert not found.stale
    assert lock.read(HOST, folder) is None
    assert remains(folder) == []


def test_the_second_is_told_who_holds_it_and_since_when(folder):
    with lock.hold(HOST, folder, dataclasses.replace(holder("a"), since=1_790_000_000.0)):
        with pytest.raises(Locked) as caught, lock.hold(HOST, folder, holder("b")):
            pass
        assert caught.value.exit_code == 4
        for part in (lock.describe_operator(), "deploy a", "2026-09-21 14:13:20 UTC"):
            assert part in caught.value.message
        assert remains(folder) == ["lock"]


def test_of_many_who_try_at_once_one_gets_it(folder):
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
def test_of_many_who_find_a_stale_lock_one_takes_it_over(folder, left):
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


def test_a_lock_of_another_machine_goes_stale_when_its_heartbeat_stops(folder):
    place = put(folder, of(ELSEWHERE), age=lock.STALE_AFTER - 10)
    found = lock.read(HOST, folder)
    assert found is not None and not found.stale
    with pytest.raises(Locked, match="bea@far on far .deploy 3.0.0. since 2026-"):
        lock.hold(HOST, folder, holder("b")).__enter__()
    beat = place.stat().st_mtime - 15
    os.utime(place, (beat, beat))
    with lock.hold(HOST, folder, holder("b")) as lease:
        assert lease.predecessor == ELSEWHERE


def test_a_dead_process_of_this_machine_holds_nothing_however_fresh_its_heartbeat(folder):
    put(folder, of(dead()))
    found = lock.read(HOST, folder)
    assert found is not None and found.stale


def test_a_process_of_another_machine_is_not_looked_for_here():
    assert not LockState(dataclasses.replace(dead(), boot="another-kernel"), 1.0).stale


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"id": "x"}', None])
def test_a_holder_that_cannot_be_read_is_someone_unknown(folder, content):
    put(folder, content, age=3.0)
    found = lock.read(HOST, folder)
    assert found is not None and found.holder is None
    assert "an unknown holder, last heartbeat" in found.describe()
    assert not found.stale


def test_a_holder_of_a_newer_deployer_is_read(folder):
    put(folder, json.dumps({**dataclasses.asdict(ELSEWHERE), "mood": "calm"}))
    found = lock.read(HOST, folder)
    assert found is not None and found.holder == ELSEWHERE


def test_the_end_of_a_run_releases_no_other_runs_lock(folder):
    with lock.hold(HOST, folder, holder("a")):
        other = of(holder("other"))
        Path(lock.path(folder), "holder").write_text(other)
    assert Path(lock.path(folder), "holder").read_text() == other


def test_breaking_takes_away_only_the_lock_that_was_seen(folder):
    put(folder, of(ELSEWHERE))
    for seen in (LockState(holder("gone"), 99.0), LockState(None, 99.0)):
        lock.break_lock(HOST, folder, seen)
        assert lock.read(HOST, folder) is not None
    lock.break_lock(HOST, folder, LockState(ELSEWHERE, 99.0))
    assert remains(folder) == []


@pytest.mark.parametrize("taken_away", ["by a successor", "by hand"])
def test_what_a_dead_run_entrusted_to_its_lock_gets_into_the_journal(folder, taken_away):
    abandon(folder, record("dead"))
    if taken_away == "by hand":
        lock.break_lock(HOST, folder, lock.read(HOST, folder))
    else:
        with lock.hold(HOST, folder, holder("b")):
            pass
    assert history(folder) == (record("dead"),)
    assert remains(folder) == ["journal.jsonl"]
    assert Path(journal.path(folder)).stat().st_mode & 0o777 == 0o600


def test_a_run_that_told_of_its_end_itself_is_not_told_of_again(folder):
    ended = record("dead", outcome="succeeded")
    journal.append(HOST, folder, ended)
    abandon(folder, record("dead"))
    with lock.hold(HOST, folder, holder("b")):
        pass
    assert history(folder) == (ended,)


def test_a_run_that_ends_leaves_nothing_for_others_to_tell(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        lease.entrust(record("a"))
    with lock.hold(HOST, folder, holder("b")):
        pass
    assert remains(folder) == []


def test_who_has_lost_the_lock_entrusts_nothing_to_the_successors(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        lease.entrust(record("a"))
        assert lease.lost.is_set()
        assert [path.name for path in Path(lock.path(folder)).iterdir()] == ["holder"]


def test_a_run_learns_that_its_lock_was_taken_away(folder, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with lock.hold(HOST, folder, holder("a")) as lease:
        assert not lease.lost.is_set()
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        assert lease.lost.wait(30)


def test_a_run_can_ask_at_once_whether_the_lock_is_still_its_own(folder):
    with lock.hold(HOST, folder, holder("a")) as lease:
        lease.renew()
        assert not lease.lost.is_set()
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        lease.renew()
        assert lease.lost.is_set()


def test_a_run_asks_whether_the_lock_is_still_its_own_where_its_heartbeat_is_overdue(
    folder, monkeypatch
):
    with lock.hold(HOST, folder, holder("a")) as lease:
        Path(lock.path(folder), "holder").write_text(of(ELSEWHERE))
        overdue = time.time() + 3 * lock.HEARTBEAT
        monkeypatch.setattr(lock.time, "time", lambda: overdue)
        lease.confirm()
        assert lease.lost.is_set()


def test_the_heartbeat_is_renewed(folder, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with lock.hold(HOST, folder, holder("a")):
        place = Path(lock.path(folder))
        os.utime(place, (1.0, 1.0))
        eventually(lambda: place.stat().st_mtime > 1.0)


def test_a_deployer_that_is_suspended_while_it_takes_the_lock_keeps_nobody_out(folder):
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


def test_who_holds_it_is_told_while_the_holder_is_suspended_in_the_middle_of_a_word(folder):
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


def test_a_lock_that_is_being_changed_for_too_long_is_a_lock(folder, monkeypatch):
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


def test_a_deployer_that_dies_while_it_takes_the_lock_leaves_none(folder):
    text = of(holder("a")).encode()
    argv = ("sh", "-c", lock._TAKE, "lock", lock.path(folder), "a", str(len(text)))
    with pytest.raises(CommandFailed):
        HOST.run(argv, stdin=text[:20])
    assert remains(folder) == []
