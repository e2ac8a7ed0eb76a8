"""A release in the trial, and the result of its API checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from workshop.pipeline.compat.contract import Answers


@dataclass(frozen=True)
class TriedRelease:
    """A release in the trial: its name in messages, its image, and the folder of its source."""

    name: str
    image: str
    source: Path


@dataclass(frozen=True)
class ApiResult:
    """The failures of a release's API checks on one database, and the statuses of its answers."""

    wrong: list[str]
    answers: Answers = field(default_factory=Answers)
