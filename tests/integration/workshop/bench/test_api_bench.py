"""A short run of `invoke bench.api`: the measured operations are in the ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.service_fixtures import ROOT
from tests.support.waiting import eventually
from workshop.bench import leftovers
from workshop.bench.api import missed, run
from workshop.bench.meters import Reading, Series, ratio

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


def test_releases_over_http_and_in_sql_write_the_same_rows() -> None:
    # Each measurement raises if the rows of one of its releases are missing.
    figures = run(seconds=1, rounds=1, clients=2, releases=20, entries=2_000)
    for kind in ("spread", "hot"):
        assert figures["release"][kind]["http"]["per_second"] > 0
        assert figures["release"][kind]["pgbench"]["per_second"] > 0
        assert figures["release"][kind]["pgbench_in_round_trips"]["per_second"] > 0
    assert figures["ping"]["ratio"]["median"] > 0
    assert figures["entries"]["lengths"] == [1_000, 2_000]


def test_ratios_are_computed_for_each_round() -> None:
    ours = Series([Reading(10, 1, 1, 1), Reading(20, 1, 1, 1), Reading(90, 1, 1, 1)])
    floor = Series([Reading(20, 1, 1, 1), Reading(20, 1, 1, 1), Reading(100, 1, 1, 1)])
    assert ratio(ours, floor) == {"median": 0.9, "least": 0.5, "most": 1.0}


def test_a_ratio_below_its_target_is_reported() -> None:
    good, bad = {"ratio": {"median": 1.0}}, {"ratio": {"median": 0.1}}
    figures = {"ping": good, "release": {"spread": good, "hot": bad}, "entries": good}
    assert missed(figures) == ["release, hot: ratio 0.1, target 0.5"]


BENCH = """
import time
from workshop.bench.local_service import installed
with installed() as (_, service):
    service.serve()
    print("up", flush=True)
    time.sleep(300)
"""


def started_by(bench: subprocess.Popen[str]) -> list[str]:
    """The process ids and folders that `bench` owns."""
    found = [str(each) for each in Path(tempfile.gettempdir()).glob(f"amani-*-{bench.pid}.*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{leftovers.MARK}={bench.pid}.".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            pass  # it has ended, or belongs to another user
    return found


def test_leftovers_of_a_killed_bench_are_removed_by_the_next_one() -> None:
    benches = [
        subprocess.Popen([sys.executable, "-c", BENCH], stdout=subprocess.PIPE, cwd=ROOT, text=True)
        for _ in range(2)
    ]
    killed, other = benches
    try:
        for bench in benches:
            assert bench.stdout and bench.stdout.readline() == "up\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        assert len(started_by(killed)) > 4
        leftovers.sweep()
        eventually(lambda: not started_by(killed))
        assert len(started_by(other)) > 4
        other.send_signal(signal.SIGTERM)
        other.wait(60)
        eventually(lambda: not started_by(other))
    finally:
        for bench in benches:
            bench.kill()
            bench.communicate()
        leftovers.sweep()
