"""What a check finds in a revision."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.database.revisions import KINDS, Kind


@dataclass(frozen=True)
class Finding:
    """A rule that applies: what it makes of the revision, where, and the safe way."""

    rule: str
    kind: Kind
    statement: str
    advice: str


def strictest(kinds: list[Kind]) -> Kind:
    """The strictest of these classes; `expand` where there is none."""
    return max(kinds, key=KINDS.index, default="expand")
