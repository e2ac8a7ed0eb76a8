"""Find the previous release of a checkout in git."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.database.checkout import read_checkout
from deploy.database.revisions import History
from deploy.errors import UsageError
from deploy.state.release import BuildInfo, Version, ask_git

VERSIONS = Path("migrations/versions")


@dataclass(frozen=True)
class PreviousRelease:
    """A release: its version (its commit if it has none), its commit and its migrations."""

    version: str
    commit: str
    history: History


def find(checkout: Path, base: str = "") -> PreviousRelease:
    """Find the release that is live when this checkout is deployed.

    It is `base` (any name of a commit), else the newest stable version tag in the past of HEAD,
    else the newest commit there whose schema head is different. Raises `UsageError` if there is
    none.
    """
    if base:
        try:
            commit = ask_git(checkout, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        except UsageError:
            raise UsageError(f"--base={base} names no commit of {checkout}") from None
        return PreviousRelease(base, commit, _history(checkout, commit))
    if tag := _newest_tag(checkout):
        commit = ask_git(checkout, "rev-parse", f"{tag}^{{commit}}")
        return PreviousRelease(str(Version(tag)), commit, _history(checkout, commit))
    here = read_checkout(checkout / VERSIONS)
    for commit in _candidates(checkout):
        history = _history(checkout, commit)
        if history.head and history.head != here.head:
            return PreviousRelease(commit[:12], commit, history)
    raise UsageError(
        "there is no version tag, and no commit with another schema head",
        hint="fetch the whole history (`git fetch --unshallow --tags`), or set --base=REF",
    )


def export(checkout: Path, commit: str, folder: Path, *paths: str) -> None:
    """Write the files of a commit, or those of its `paths`, into a folder."""
    argv = ("git", "-C", str(checkout), "archive", "--format=tar", commit, *paths)
    done = subprocess.run(argv, capture_output=True)
    if done.returncode:
        raise UsageError(f"{checkout}: git archive {commit}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _newest_tag(checkout: Path) -> str:
    info = BuildInfo.of(checkout)
    # A tag of HEAD is this release itself, unless there are uncommitted changes.
    own = () if info.dirty else ("--no-contains", "HEAD")
    tags = ask_git(checkout, "tag", "--merged", "HEAD", *own, "--list", "v[0-9]*").split()
    return max((tag for tag in tags if Version(tag).stable), key=Version, default="")


def _candidates(checkout: Path) -> Iterator[str]:
    """HEAD, for an uncommitted change, and the parent of each commit that changed migrations."""
    yield ask_git(checkout, "rev-parse", "HEAD")
    log = ask_git(checkout, "log", "--first-parent", "--format=%P", "--", str(VERSIONS))
    for parents in log.splitlines():
        if parents:
            yield parents.split()[0]


def _history(checkout: Path, commit: str) -> History:
    if not ask_git(checkout, "ls-tree", commit, str(VERSIONS)):
        return History()
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        export(checkout, commit, Path(folder), str(VERSIONS))
        return read_checkout(Path(folder) / VERSIONS)
