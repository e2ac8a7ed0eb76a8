"""Recovery targets: parse a point in time, and check that it can be recovered. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from deploy.errors import GateRefused, UsageError

TARGET_FORM = (
    'such as "2026-11-23 14:05", which is UTC; "2026-11-23 15:05:30+01:00"; or with '
    "--zone=Africa/Lagos"
)
_TARGET = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?) ?(Z|UTC|[+-]\d{2}:\d{2})?",
    re.ASCII,
)


def parse_target(text: str, zone: str = "") -> datetime:
    """Parse a point in time, and return it in UTC. Without an offset it is in `zone`, or in UTC.

    Raises `UsageError` if the text is no date with a time, or if clocks in the zone show that
    time twice or never, as when daylight saving time begins or ends.
    """
    found = _TARGET.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a date and a time with minutes", hint=TARGET_FORM)
    date, clock, offset = found.groups()
    try:
        local = datetime.fromisoformat(f"{date} {clock}")
        if offset:
            whole = datetime.fromisoformat(f"{date} {clock}{offset.replace('UTC', 'Z')}")
            return whole.astimezone(UTC)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a valid time: {error}", hint=TARGET_FORM) from None
    return _in_zone(local, zone or "UTC")


def _in_zone(local: datetime, zone: str) -> datetime:
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "use a name of the IANA database, such as Africa/Lagos"
        raise UsageError(f"there is no time zone {zone!r}", hint=hint) from None
    first, second = (
        local.replace(tzinfo=place, fold=fold).astimezone(UTC).replace(tzinfo=UTC)
        for fold in (0, 1)
    )
    if first == second:
        return first
    exists = first.astimezone(place).replace(tzinfo=None) == local
    raise UsageError(
        f"clocks in {zone} show {local:%Y-%m-%d %H:%M} {'twice' if exists else 'never'}",
        hint=f"use one of: {first:%Y-%m-%d %H:%M}Z or {second:%Y-%m-%d %H:%M}Z",
    )


def format_time(time: datetime | float | None) -> str:
    """A time in UTC, to the second, as PostgreSQL also reads it; `never` for None."""
    if time is None:
        return "never"
    if not isinstance(time, datetime):
        time = datetime.fromtimestamp(time, UTC)
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class RecoveryWindow:
    """The points in time that can be recovered, in seconds since the epoch.

    `newest` is None if it is unknown, as while the server is stopped: the archive ends there.
    """

    oldest: float
    newest: float | None

    def describe(self) -> str:
        if self.newest is not None and self.newest < self.oldest:
            return f"none yet: the archive ends before {format_time(self.oldest)}"
        end = "the end of the archive" if self.newest is None else format_time(self.newest)
        return f"from {format_time(self.oldest)} to {end}"

    def require(self, target: datetime, now: float) -> None:
        """Raise `GateRefused` for a target outside of the window."""
        at = target.timestamp()
        hint = f"recovery window: {self.describe()}"
        if at > now:
            raise GateRefused(
                f"{format_time(target)} is in the future: the server's time is {format_time(now)}",
                hint=hint,
            )
        if at <= self.oldest:
            raise GateRefused(
                f"{format_time(target)} is before the end of the first base backup", hint=hint
            )
        if self.newest is not None and at > self.newest:
            raise GateRefused(f"{format_time(target)} is not in the archive yet", hint=hint)


@dataclass(frozen=True, order=True)
class PastRecovery:
    """A recovery that replaced the live database, which until then wrote `timeline`.

    It was replaced at `left` by its state at `target`: the changes between the two are on that
    timeline only. Times in seconds since the epoch.
    """

    target: float
    left: float
    timeline: int

    def text(self) -> str:
        """The form that `parse_past_recoveries` reads, with microseconds."""
        return f"{self.target:.6f} {self.left:.6f} {self.timeline}"


def parse_past_recoveries(text: str) -> tuple[PastRecovery, ...]:
    """Parse past recoveries that are separated by `;`, without the malformed ones."""
    found = (part.split() for part in text.split(";"))
    return tuple(
        PastRecovery(float(fields[0]), float(fields[1]), int(fields[2]))
        for fields in found
        if len(fields) == 3 and fields[2].isdigit()
    )


def find_timeline(target: datetime, past_recoveries: Sequence[PastRecovery]) -> int | None:
    """The timeline that a target is on; None if it is the newest."""
    at = target.timestamp()
    for past in sorted(past_recoveries, key=lambda one: one.left):
        if past.target < at < past.left:
            return past.timeline
    return None
