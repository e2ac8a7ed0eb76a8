"""Version, commit, build time, number and branch of the running code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class BuildIdentity:
    """The build's identity; a field without a value is `unknown`."""

    version: str = "unknown"
    commit: str = "unknown"
    build_time: str = "unknown"
    """UTC, ISO 8601."""
    build_number: str = "unknown"
    branch: str = "unknown"

    def as_dict(self) -> dict[str, str]:
        """The fields under their own names."""
        return dict(vars(self))


VARIABLES = {
    "version": "BUILD_VERSION",
    "commit": "BUILD_SHA",
    "build_time": "BUILD_TIME",
    "build_number": "BUILD_NUMBER",
    "branch": "BUILD_BRANCH",
}
"""Field -> its environment variable and build argument."""


def load_build_info(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> BuildIdentity:
    """Read `environ`, else `build-info.json` in `root`, else git. A missing value is no error."""
    file = root / "build-info.json"
    given = {field: environ.get(name, "") for field, name in VARIABLES.items()}
    if not all(given.values()):
        base = _from_file(file) if file.exists() else _from_git(root)
        given = {field: value or str(base.get(field, "")) for field, value in given.items()}
    return BuildIdentity(**{field: value for field, value in given.items() if value})


def _from_file(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_git(root: Path) -> dict[str, str]:
    if not (root / ".git").exists():
        return {}
    import subprocess  # nosec B404

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        utc = {**os.environ, "TZ": "UTC"}
        try:
            return subprocess.run(  # nosec
                command, capture_output=True, text=True, timeout=5, env=utc
            ).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""

    commit, _, when = git("log", "-1", "--format=%H %cd", "--date=format-local:%FT%TZ").partition(
        " "
    )
    return {
        "version": git("describe", "--tags", "--always", "--dirty").removeprefix("v"),
        "commit": commit,
        "build_time": when,
        "build_number": git("rev-list", "--count", "HEAD"),
        "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
    }
