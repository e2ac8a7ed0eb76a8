"""A moment to go back to: how it is said, and whether it can be reached. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from deploy.errors import GateRefused, UsageError

FORM = (
    'such as "2026-11-23 14:05", which is UTC; "2026-11-23 15:05:30+01:00"; or with '
    "--zone=Africa/Lagos"
)
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?) ?(Z|UTC|[+-]\d{2}:\d{2})?",
    re.ASCII,
)


def parse(text: str, zone: str = "") -> datetime:
    """The moment in UTC. Without an offset of its own it is of `zone`, by default UTC.

    Raises `UsageError` for what is no date with a time, and for what clocks of the zone show twice
    or never in the night when they are changed.
    """
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} does not say date and time, to the minute at least", hint=FORM)
    date, clock, offset = found.groups()
    try:
        said = datetime.fromisoformat(f"{date} {clock}")
        if offset:
            whole = datetime.fromisoformat(f"{date} {clock}{offset.replace('UTC', 'Z')}")
            return whole.astimezone(UTC)
    except ValueError as error:
        raise UsageError(f"{text!r} is no moment: {error}", hint=FORM) from None
    return _in_zone(said, zone or "UTC")


def _in_zone(said: datetime, zone: str) -> datetime:
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "its name in the IANA database, such as Africa/Lagos"
        raise UsageError(f"no time zone is called {zone!r}", hint=hint) from None
    first, second = (
        said.replace(tzinfo=place, fold=fold).astimezone(UTC).replace(tzinfo=UTC) for fold in (0, 1)
    )
    if first == second:
        return first
    there = first.astimezone(place).replace(tzinfo=None) == said
    raise UsageError(
        f"clocks in {zone} show {said:%Y-%m-%d %H:%M} {'twice' if there else 'never'}",
        hint=f"say which is meant: {first:%Y-%m-%d %H:%M}Z or {second:%Y-%m-%d %H:%M}Z",
    )


def show(moment: datetime | float | None) -> str:
    """As people read it, in UTC, to the second; and as the server's programs read it."""
    if moment is None:
        return "never"
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Window:
    """The moments that can be restored, in seconds since the epoch.

    `newest` is None where the server that could tell does not run: then it is the archive's end.
    """

    oldest: float
    newest: float | None

    def describe(self) -> str:
        """In words."""
        if self.newest is not None and self.newest < self.oldest:
            return f"nothing yet: the archive ends before {show(self.oldest)}"
        end = "the end of the archive" if self.newest is None else show(self.newest)
        return f"from {show(self.oldest)} to {end}"

    def require(self, moment: datetime, now: float) -> None:
        """Raise `GateRefused` for a moment outside of it."""
        at = moment.timestamp()
        hint = f"what can be restored: {self.describe()}"
        if at > now:
            raise GateRefused(f"{show(moment)} is yet to come: it is {show(now)} there", hint=hint)
        if at <= self.oldest:
            raise GateRefused(f"{show(moment)} is before the end of the first backup", hint=hint)
        if self.newest is not None and at > self.newest:
            raise GateRefused(f"{show(moment)} is not in the archive yet", hint=hint)


@dataclass(frozen=True, order=True)
class Departure:
    """A time at which the live database was taken back: the one of `timeline` ended at `left`, and
    the moments from `target` to there are on it alone."""

    target: float
    left: float
    timeline: int

    def text(self) -> str:
        """As `parse_departures` reads it back, seconds to the microsecond."""
        return f"{self.target:.6f} {self.left:.6f} {self.timeline}"


def parse_departures(text: str) -> tuple[Departure, ...]:
    """Departures with `;` between; what is none is passed over."""
    found = (part.split() for part in text.split(";"))
    return tuple(
        Departure(float(words[0]), float(words[1]), int(words[2]))
        for words in found
        if len(words) == 3 and words[2].isdigit()
    )


def timeline(moment: datetime, departures: Sequence[Departure]) -> int | None:
    """The timeline that a moment is on; None where that is the newest."""
    at = moment.timestamp()
    for departure in sorted(departures, key=lambda one: one.left):
        if departure.target < at < departure.left:
            return departure.timeline
    return None
