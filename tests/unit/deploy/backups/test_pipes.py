"""Pipelines: the failure of any process fails them."""

from __future__ import annotations

import threading

import pytest

from deploy.backups.program.pipes import Failure, Job
from tests.support.waiting import eventually


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_output_of_last_process_is_complete():
    job, got = Job(), bytearray()
    job.run(sh("seq 1 200000"), ["cat"], sink=got.extend)
    assert got.decode().split() == [str(number) for number in range(1, 200_001)]
    assert job.done == len(got)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_failure_of_any_process_fails_the_pipeline(place: int):
    commands = [sh("echo some; cat"), ["cat"], ["cat"]]
    commands[place] = sh("cat >/dev/null; echo no luck >&2; exit 9")
    with pytest.raises(Failure, match=r"`sh` ended with 9\nno luck"):
        Job().run(*commands, sink=lambda data: None)


def test_reader_that_stops_early_is_reported_instead_of_writer():
    with pytest.raises(Failure, match="had enough"):
        Job().run(["yes"], sh("head -c 9 >/dev/null; echo had enough >&2; exit 1"))


def test_reader_that_exits_zero_before_writer_fails_the_pipeline():
    with pytest.raises(Failure, match="`yes` was ended by SIGPIPE"):
        Job().run(["yes"], ["true"])


def test_killed_process_is_reported_with_its_signal():
    with pytest.raises(Failure, match="`sh` was ended by SIGKILL"):
        Job().run(sh("kill -9 $$"), ["cat"], sink=lambda data: None)


def test_failing_sink_ends_the_pipeline():
    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(Failure, match="No space left on device") as caught:
            Job().run(["yes"], sink=full.write)
    assert "backups.directory" in caught.value.hint


def test_stop_ends_a_running_pipeline():
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
