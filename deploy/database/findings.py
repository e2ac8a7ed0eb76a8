"""Results of the checks of a revision."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.database.revisions import KINDS, Kind


@dataclass(frozen=True)
class Finding:
    """A rule that applies: the class of the revision, the reason, and the safe alternative."""

    rule: str
    kind: Kind
    statement: str
    advice: str


def find_strictest(kinds: list[Kind]) -> Kind:
    """The strictest of these classes. `expand` if there are none."""
    return max(kinds, key=KINDS.index, default="expand")
