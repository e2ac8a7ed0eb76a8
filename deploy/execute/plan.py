"""Plans as values: the steps, their order and their hosts."""

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
    """One change to one host.

    A step is a value: its fields hold everything that `apply` and `revert` need, except the `Run`.
    Both are idempotent and accept a half-applied state, since the executor also reverts the step
    that failed.
    """

    kind: ClassVar[str]
    """Its unique name in the plan's JSON, in events and in the journal."""
    needs_smoke: ClassVar[bool] = False
    """Whether a smoke test must follow: the step changes which release serves, or its schema."""
    host: str

    def describe(self) -> str:
        """The change in one line for the operator, without the host's name."""
        raise NotImplementedError

    def done(self, run: Run) -> bool:
        """Whether the change is already there. Checked right before `apply`, and skips it."""
        return False

    def apply(self, run: Run) -> None:
        """Make the change. Raises a `DeployError` if it fails."""
        raise NotImplementedError

    def revert(self, run: Run) -> None:
        """Undo the change, wholly or half applied. Does nothing by default."""

    def as_json(self) -> dict[str, Any]:
        """The step's kind and fields as JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Stage:
    """Lanes that run at the same time, each with steps that run one after another.

    If `on_failure` is `revert`, a failure reverts the whole plan. If it is `report`, the release
    is already live and verified: the other lanes continue, the failure is reported, and the next
    run completes the rest.
    """

    name: str
    lanes: tuple[tuple[Step, ...], ...]
    on_failure: Literal["revert", "report"] = "revert"

    @property
    def needs_smoke(self) -> bool:
        """Whether a smoke test must follow one of its steps."""
        return any(step.needs_smoke for lane in self.lanes for step in lane)


@dataclass(frozen=True)
class Plan:
    """Stages in order, and the release that they make live."""

    kind: Literal["deploy", "rollback"]
    environment: str
    version: str
    digest: str
    stages: tuple[Stage, ...] = ()
    reasons: tuple[str, ...] = ()
    """The differences that the plan removes, in words for the operator."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(True for _ in self.steps())

    def steps(self) -> Iterator[Step]:
        """All steps in the order of the stages."""
        for stage in self.stages:
            for lane in stage.lanes:
                yield from lane

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values, without its reasons."""
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
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()


def make_stage(
    name: str,
    lanes: list[list[Step]],
    on_failure: Literal["revert", "report"] = "revert",
) -> Stage | None:
    """A stage of the lanes that have steps, or None if none has."""
    filled = tuple(tuple(lane) for lane in lanes if lane)
    return Stage(name, filled, on_failure) if filled else None
