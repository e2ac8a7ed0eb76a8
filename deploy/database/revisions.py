"""Revisions as values, and their form in an image's label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["expand", "backfill", "contract", "unsafe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The classes in order of risk, from harmless to one that stops the service."""
LABEL = "amani.schema.revisions"


@dataclass(frozen=True)
class Revision:
    """One step of the schema's history."""

    id: str
    kind: Kind

    @property
    def leaves_old_code_running(self) -> bool:
        """Whether a release without this revision runs on a schema with it."""
        return self.kind in ("expand", "backfill")


@dataclass(frozen=True)
class History:
    """The revisions of an image or a checkout, oldest first."""

    revisions: tuple[Revision, ...] = ()

    @property
    def head(self) -> str:
        """The newest revision. Empty if there is none."""
        return self.revisions[-1].id if self.revisions else ""

    def __contains__(self, revision: object) -> bool:
        return any(known.id == revision for known in self.revisions)

    def after(self, revision: str) -> tuple[Revision, ...]:
        """The revisions after a known one. All of them if it is empty."""
        if not revision:
            return self.revisions
        ids = [known.id for known in self.revisions]
        return self.revisions[ids.index(revision) + 1 :]

    @property
    def arguments(self) -> dict[str, str]:
        """The image's build arguments, by name."""
        return {"SCHEMA_HEAD": self.head, "SCHEMA_REVISIONS": self.label()}

    def label(self) -> str:
        """The form in an image's label: `0001:expand,0002:contract`."""
        return ",".join(f"{known.id}:{known.kind}" for known in self.revisions)


def read_label(labels: Mapping[str, str]) -> History:
    """The history in an image's labels. An unreadable entry counts as unsafe."""
    pairs = [entry.partition(":") for entry in labels.get(LABEL, "").split(",") if entry]
    return History(tuple(Revision(id, _kind(kind)) for id, _, kind in pairs))


def _kind(text: str) -> Kind:
    return next((kind for kind in KINDS if kind == text), "unsafe")
