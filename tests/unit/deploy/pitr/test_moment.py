"""Moments given by the operator, and whether a recovery can reach them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.pitr.moment import Departure, Window, parse, parse_departures, show, timeline


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("2026-11-23 14:05", "", "2026-11-23T14:05:00"),
        ("2026-11-23T14:05:30", "", "2026-11-23T14:05:30"),
        (" 2026-11-23 14:05:30.25Z", "", "2026-11-23T14:05:30.250000"),
        ("2026-11-23 14:05 UTC", "Africa/Lagos", "2026-11-23T14:05:00"),
        ("2026-11-23 14:05+01:00", "", "2026-11-23T13:05:00"),
        ("2026-11-23 14:05", "Africa/Lagos", "2026-11-23T13:05:00"),
        ("2026-07-01 14:05", "Europe/Berlin", "2026-07-01T12:05:00"),
        ("2026-10-25 02:30+02:00", "Europe/Berlin", "2026-10-25T00:30:00"),
    ],
)
def test_moment_is_parsed(text: str, zone: str, meant: str) -> None:
    found = parse(text, zone)
    assert (found.replace(tzinfo=None).isoformat(), found.tzinfo) == (meant, UTC)


@pytest.mark.parametrize(
    ("text", "zone", "why"),
    [
        ("14:05", "", "does not say date and time"),
        ("2026-11-23", "", "does not say date and time"),
        ("11/23/2026 14:05", "", "does not say date and time"),
        ("yesterday", "", "does not say date and time"),
        ("2026-11-23 14", "", "does not say date and time"),
        ("2026-11-23 14:05 CET", "", "does not say date and time"),
        ("2026-13-23 14:05", "", "is no moment"),
        ("2026-11-23 14:05+99:00", "", "is no moment"),
        ("2026-11-23 14:05", "Lagos", "no time zone is called 'Lagos'"),
        ("2026-11-23 14:05", "../etc/passwd", "no time zone"),
        ("2026-10-25 02:30", "Europe/Berlin", "show 2026-10-25 02:30 twice"),
        ("2026-03-29 02:30", "Europe/Berlin", "show 2026-03-29 02:30 never"),
    ],
)
def test_invalid_or_ambiguous_moment_is_rejected(text: str, zone: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        parse(text, zone)
    assert refused.value.hint


def test_repeated_local_time_is_rejected_with_both_readings() -> None:
    with pytest.raises(UsageError) as refused:
        parse("2026-10-25 02:30", "Europe/Berlin")
    assert refused.value.hint.endswith("2026-10-25 00:30Z or 2026-10-25 01:30Z")


@pytest.mark.parametrize(
    ("at", "newest", "why"),
    [
        (100, 900.0, "before the end of the first backup"),
        (99, 900.0, "before the end of the first backup"),
        (901, 900.0, "is not in the archive yet"),
        (1001, None, "is yet to come: it is 1970-01-01 00:16:40 UTC"),
    ],
)
def test_moment_outside_window_is_rejected_with_the_window(
    at: int, newest: float | None, why: str
) -> None:
    with pytest.raises(GateRefused, match=why) as refused:
        Window(100, newest).require(datetime.fromtimestamp(at, UTC), 1000.0)
    assert "from 1970-01-01 00:01:40 UTC to " in refused.value.hint


@pytest.mark.parametrize(("at", "newest"), [(101, 900.0), (900, 900.0), (1000, None)])
def test_moment_inside_window_is_accepted(at: int, newest: float | None) -> None:
    Window(100, newest).require(datetime.fromtimestamp(at, UTC), 1000.0)


@pytest.mark.parametrize(
    ("at", "line"), [(5, None), (30, 1), (70, 1), (99, 1), (150, 2), (201, None)]
)
def test_moment_before_a_recovery_is_on_the_earlier_timeline(at: int, line: int | None) -> None:
    # Recovery at 100 to 10 begins timeline 2; at 200 to 50, on timeline 1, begins timeline 3.
    departures = [Departure(50, 200, 2), Departure(10, 100, 1)]
    assert timeline(datetime.fromtimestamp(at, UTC), departures) == line


def test_window_without_archived_wal_is_reported_as_none() -> None:
    assert Window(100, 99).describe().startswith("nothing yet: the archive ends before 1970")


def test_departures_round_trip() -> None:
    departures = (Departure(50.5, 200.000001, 2), Departure(10, 100, 1))
    assert parse_departures(";".join(one.text() for one in departures)) == departures
    assert parse_departures("") == parse_departures("torn; 1 2") == ()


def test_time_is_shown_with_its_zone() -> None:
    assert show(1000.0) == show(datetime.fromtimestamp(1000, UTC)) == "1970-01-01 00:16:40 UTC"
    assert show(None) == "never"
