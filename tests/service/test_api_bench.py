"""`invoke bench.api` in small: what it measures has really happened."""

from __future__ import annotations

import pytest

from deploy.bench.api import missed, run
from deploy.bench.meters import Reading, Series, ratio

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


def test_releases_over_http_and_in_sql_leave_the_same_books() -> None:
    # Each stretch raises where one of its releases did not leave its rows.
    figures = run(seconds=1, rounds=1, clients=2, releases=20, entries=2_000)
    for kind in ("spread", "hot"):
        assert figures["release"][kind]["http"]["per_second"] > 0
        assert figures["release"][kind]["pgbench"]["per_second"] > 0
    assert figures["ping"]["ratio"]["median"] > 0
    assert figures["entries"]["lengths"] == [1_000, 2_000]


def test_ratios_are_taken_round_by_round() -> None:
    ours = Series([Reading(10, 1, 1, 1), Reading(20, 1, 1, 1), Reading(90, 1, 1, 1)])
    floor = Series([Reading(20, 1, 1, 1), Reading(20, 1, 1, 1), Reading(100, 1, 1, 1)])
    assert ratio(ours, floor) == {"median": 0.9, "least": 0.5, "most": 1.0}


def test_a_ratio_below_its_target_is_named() -> None:
    good, bad = {"ratio": {"median": 1.0}}, {"ratio": {"median": 0.1}}
    figures = {"ping": good, "release": {"spread": good, "hot": bad}, "entries": good}
    assert missed(figures) == ["release, hot: 0.1 where 0.5 is wanted"]
