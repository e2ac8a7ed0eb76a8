"""What was built, told to whatever deploys it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.output.github import tell

if TYPE_CHECKING:
    from deploy.state.release import Release


def write(path: Path, release: Release, environment: str, *, built: bool) -> None:
    """Write a release as JSON, and set `repository`, `digest`, `version` and `built` of a job's
    step; `built` is whether this run built it, or promoted what an earlier one had built.

    With what only Actions knows beside it: the run and the attempt that built it.
    """
    told = {
        "environment": environment,
        "version": str(release.version),
        "repository": release.image.repository,
        "digest": release.image.digest,
        "revision": release.revision,
        "created": release.created,
        "schema_head": release.schema_head,
        "built": built,
        "run": os.environ.get("GITHUB_RUN_ID", ""),
        "attempt": os.environ.get("GITHUB_RUN_ATTEMPT", ""),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n")
    tell(
        repository=release.image.repository,
        digest=release.image.digest,
        version=str(release.version),
        built="true" if built else "false",
    )
