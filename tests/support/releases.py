"""A Git repository with releases and migrations, for tests that select the previous release."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.revisions import write_revision
from workshop.pipeline.compat.previous_release import VERSIONS


def git(folder: Path, *words: str) -> None:
    """Run Git in `folder`, with an author of its own."""
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *author, *words], check=True, capture_output=True)


def commit(folder: Path, message: str, tag: str = "") -> None:
    """Commit every change in `folder`, and tag the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "-m", message)
    if tag:
        git(folder, "tag", tag)


def release_repository(folder: Path) -> Path:
    """A new repository: revision a is released as v1.0.0, b as v1.1.0, c is not committed."""
    (folder / VERSIONS).mkdir(parents=True)
    git(folder.parent, "init", "--quiet", str(folder))
    write_revision(folder, "a", "", "expand", "pass", "pass")
    commit(folder, "a", "v1.0.0")
    write_revision(folder, "b", "a", "expand", "pass", "pass")
    commit(folder, "b", "v1.1.0")
    git(folder, "tag", "v2.0.0-rc.1", "v1.0.0")
    write_revision(folder, "c", "b", "expand", "pass", "pass")
    return folder
