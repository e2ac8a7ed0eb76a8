"""Recovery targets: the parsed time, and whether it can be recovered."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.pitr.recovery_target import (
    PastRecovery,
    RecoveryWindow,
    find_timeline,
    format_time,
    parse_past_recoveries,
    parse_target,
)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
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
def test_a_date_and_a_time_are_parsed(text: str, zone: str, expected: str) -> None:
    found = parse_target(text, zone)
    assert (found.replace(tzinfo=None).isoformat(), found.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(
    ("text", "zone", "why"),
    [
        ("14:05", "", "is not a date and a time"),
        ("2026-11-23", "", "is not a date and a time"),
        ("11/23/2026 14:05", "", "is not a date and a time"),
        ("yesterday", "", "is not a date and a time"),
        ("2026-11-23 14", "", "is not a date and a time"),
        ("2026-11-23 14:05 CET", "", "is not a date and a time"),
        ("2026-13-23 14:05", "", "is not a valid time"),
        ("2026-11-23 14:05+99:00", "", "is not a valid time"),
        ("2026-11-23 14:05", "Lagos", "there is no time zone 'Lagos'"),
        ("2026-11-23 14:05", "../etc/passwd", "no time zone"),
        ("2026-10-25 02:30", "Europe/Berlin", "show 2026-10-25 02:30 twice"),
        ("2026-03-29 02:30", "Europe/Berlin", "show 2026-03-29 02:30 never"),
    ],
)
def test_an_invalid_or_ambiguous_time_is_refused(text: str, zone: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        parse_target(text, zone)
    assert refused.value.hint


def test_the_hint_for_an_ambiguous_time_names_both_times() -> None:
    with pytest.raises(UsageError) as refused:
        parse_target("2026-10-25 02:30", "Europe/Berlin")
    assert refused.value.hint.endswith("2026-10-25 00:30Z or 2026-10-25 01:30Z")


@pytest.mark.parametrize(
    ("at", "newest", "why"),
    [
        (100, 900.0, "before the end of the first base backup"),
        (99, 900.0, "before the end of the first base backup"),
        (901, 900.0, "is not in the archive yet"),
        (1001, None, "is in the future: the server's time is 1970-01-01 00:16:40 UTC"),
    ],
)
def test_a_time_outside_of_the_window_is_refused_with_the_window(
    at: int, newest: float | None, why: str
) -> None:
    with pytest.raises(GateRefused, match=why) as refused:
        RecoveryWindow(100, newest).require(datetime.fromtimestamp(at, UTC), 1000.0)
    assert "from 1970-01-01 00:01:40 UTC to " in refused.value.hint


@pytest.mark.parametrize(("at", "newest"), [(101, 900.0), (900, 900.0), (1000, None)])
def test_a_time_inside_of_the_window_is_accepted(at: int, newest: float | None) -> None:
    RecoveryWindow(100, newest).require(datetime.fromtimestamp(at, UTC), 1000.0)


@pytest.mark.parametrize(
    ("at", "line"), [(5, None), (30, 1), (70, 1), (99, 1), (150, 2), (201, None)]
)
def test_a_time_before_a_past_recovery_is_on_the_earlier_timeline(
    at: int, line: int | None
) -> None:
    # At 100, recovery to 10: timeline 2 begins. At 200, recovery to 50 on timeline 1: 3 begins.
    past_recoveries = [PastRecovery(50, 200, 2), PastRecovery(10, 100, 1)]
    assert find_timeline(datetime.fromtimestamp(at, UTC), past_recoveries) == line


def test_a_window_that_the_archive_does_not_reach_is_described_as_none() -> None:
    assert RecoveryWindow(100, 99).describe().startswith("none yet: the archive ends before 1970")


def test_past_recoveries_are_parsed() -> None:
    past_recoveries = (PastRecovery(50.5, 200.000001, 2), PastRecovery(10, 100, 1))
    assert parse_past_recoveries(";".join(one.text() for one in past_recoveries)) == past_recoveries
    assert parse_past_recoveries("") == parse_past_recoveries("torn; 1 2") == ()


def test_a_time_is_shown_with_its_zone() -> None:
    assert (
        format_time(1000.0)
        == format_time(datetime.fromtimestamp(1000, UTC))
        == "1970-01-01 00:16:40 UTC"
    )
    assert format_time(None) == "never"
