"""Pipelines: a failure of any process fails the pipeline."""

from __future__ import annotations

import threading

import pytest

from deploy.backups.program.pipes import BackupJob, Failure
from tests.support.waiting import eventually


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_the_sink_gets_the_whole_output():
    job, got = BackupJob(), bytearray()
    job.run(sh("seq 1 200000"), ["cat"], sink=got.extend)
    assert got.decode().split() == [str(number) for number in range(1, 200_001)]
    assert job.done == len(got)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failed_process_at_any_place_fails_the_pipeline(place: int):
    commands = [sh("echo some; cat"), ["cat"], ["cat"]]
    commands[place] = sh("cat >/dev/null; echo no luck >&2; exit 9")
    with pytest.raises(Failure, match=r"`sh` ended with 9\nno luck"):
        BackupJob().run(*commands, sink=lambda data: None)


def test_a_reader_that_stops_early_is_reported_and_not_the_writer():
    with pytest.raises(Failure, match="had enough"):
        BackupJob().run(["yes"], sh("head -c 9 >/dev/null; echo had enough >&2; exit 1"))


def test_a_reader_that_succeeds_before_the_writer_ends_is_a_failure():
    with pytest.raises(Failure, match="`yes` was killed by SIGPIPE"):
        BackupJob().run(["yes"], ["true"])


def test_killed_process_is_reported_with_its_signal():
    with pytest.raises(Failure, match="`sh` was killed by SIGKILL"):
        BackupJob().run(sh("kill -9 $$"), ["cat"], sink=lambda data: None)


def test_a_sink_that_cannot_write_fails_the_pipeline():
    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(Failure, match="No space left on device") as caught:
            BackupJob().run(["yes"], sink=full.write)
    assert "backups.directory" in caught.value.hint


def test_stopping_a_job_ends_its_running_pipeline():
    job = BackupJob()
    caught: list[Failure] = []

    def work() -> None:
        try:
            job.run(["yes"], sink=lambda data: None)
        except Failure as failure:
            caught.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: job.done)
    job.stop()
    thread.join(40)
    assert [failure.kind for failure in caught] == ["stopped"]
