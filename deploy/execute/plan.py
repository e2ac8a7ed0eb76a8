"""A plan is a value: what will be done, in which order, on which hosts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from deploy.execute.run import Run


@dataclass(frozen=True)
class Step:
    """One change on one host.

    Steps are values and hold all that they and their revert need to know; what they work on
    comes with the `Run`. `apply` and `revert` are idempotent and may meet a half-applied state:
    the executor also reverts the step that failed.
    """

    kind: ClassVar[str]
    host: str

    def describe(self) -> str:
        """One line for people: what this does, without the host's name."""
        raise NotImplementedError

    def done(self, run: Run) -> bool:
        """Whether there is nothing to do (asked right before `apply`)."""
        return False

    def apply(self, run: Run) -> None:
        """Bring it about. Raises a `DeployError` where that cannot be done."""
        raise NotImplementedError

    def revert(self, run: Run) -> None:
        """Take it back, wholly or half applied. Without an effect by default."""

    def as_json(self) -> dict[str, Any]:
        """This step as JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Stage:
    """Steps that belong together: lanes run side by side, the steps of a lane one after another.

    A failure in a `reverting` stage takes the whole plan back. In a `finishing` stage the release
    is already live and verified: other lanes go on, the failure is reported, and the next run
    completes what is missing.
    """

    name: str
    lanes: tuple[tuple[Step, ...], ...]
    on_failure: Literal["revert", "report"] = "revert"


@dataclass(frozen=True)
class Plan:
    """Stages in order, and what they are for."""

    kind: Literal["deploy", "rollback"]
    environment: str
    version: str
    digest: str
    stages: tuple[Stage, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why each part of the plan is there, for the person who reads it."""

    @property
    def empty(self) -> bool:
        """Whether the environment is what it should be."""
        return not any(True for _ in self.steps())

    def steps(self) -> Iterator[Step]:
        """All steps in the order of the stages."""
        for stage in self.stages:
            for lane in stage.lanes:
                yield from lane

    def as_json(self) -> dict[str, Any]:
        """This plan as JSON values."""
        return {
            "kind": self.kind,
            "environment": self.environment,
            "version": self.version,
            "digest": self.digest,
            "stages": [
                {
                    "name": stage.name,
                    "on_failure": stage.on_failure,
                    "lanes": [[step.as_json() for step in lane] for lane in stage.lanes],
                }
                for stage in self.stages
            ],
        }

    def canonical(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, one line. Equal plans give equal bytes."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":")).encode()

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal: what an approver would sign."""
        return hashlib.sha256(self.canonical()).hexdigest()


def stage(
    name: str,
    lanes: list[list[Step]],
    on_failure: Literal["revert", "report"] = "revert",
) -> Stage | None:
    """A stage of the lanes that hold something, or None where none does."""
    filled = tuple(tuple(lane) for lane in lanes if lane)
    return Stage(name, filled, on_failure) if filled else None
