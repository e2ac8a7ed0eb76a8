"""Pipelines: every process counts."""

from __future__ import annotations

import threading

import pytest

from deploy.backups.program.pipes import Failure, Job
from tests.support.waiting import eventually


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_what_the_last_prints_arrives_whole():
    job, got = Job(), bytearray()
    job.run(sh("seq 1 200000"), ["cat"], sink=got.extend)
    assert got.decode().split() == [str(number) for number in range(1, 200_001)]
    assert job.done == len(got)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_process_that_fails_anywhere_fails_the_whole(place: int):
    commands = [sh("echo some; cat"), ["cat"], ["cat"]]
    commands[place] = sh("cat >/dev/null; echo no luck >&2; exit 9")
    with pytest.raises(Failure, match=r"`sh` ended with 9\nno luck"):
        Job().run(*commands, sink=lambda data: None)


def test_a_reader_that_stops_early_is_the_culprit_and_not_the_writer():
    with pytest.raises(Failure, match="had enough"):
        Job().run(["yes"], sh("head -c 9 >/dev/null; echo had enough >&2; exit 1"))


def test_a_reader_that_ends_well_before_the_writer_is_a_failure_all_the_same():
    with pytest.raises(Failure, match="`yes` was ended by SIGPIPE"):
        Job().run(["yes"], ["true"])


def test_a_killed_process_is_named_with_its_signal():
    with pytest.raises(Failure, match="`sh` was ended by SIGKILL"):
        Job().run(sh("kill -9 $$"), ["cat"], sink=lambda data: None)


def test_a_sink_that_cannot_write_ends_all_of_it():
    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(Failure, match="No space left on device") as caught:
            Job().run(["yes"], sink=full.write)
    assert "backups.directory" in caught.value.hint


def test_stopping_ends_a_pipeline_under_way():
    job = Job()
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
