"""The metadata of a build, for the CI job that deploys it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.output.github import set_outputs

if TYPE_CHECKING:
    from deploy.state.release import Release


def write_metadata(path: Path, release: Release, environment: str, *, built: bool) -> None:
    """Write a release to a JSON file, with the GitHub Actions run and attempt if there is one.

    Also sets the step outputs `repository`, `digest`, `version` and `built`. `built` is false if
    an existing image was promoted.
    """
    metadata = {
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
    path.write_text(json.dumps(metadata, indent=2) + "\n")
    set_outputs(
        repository=release.image.repository,
        digest=release.image.digest,
        version=str(release.version),
        built="true" if built else "false",
    )
