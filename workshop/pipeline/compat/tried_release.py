"""A release in the trial, and how it went through its own API suite."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from workshop.pipeline.compat.contract import Answers


@dataclass(frozen=True)
class TriedRelease:
    """A release in the trial: what it is called, its image, and its sources."""

    name: str
    image: str
    source: Path


@dataclass(frozen=True)
class ApiResult:
    """How a release went through its own API suite on some database."""

    wrong: list[str]
    answers: Answers = field(default_factory=Answers)
