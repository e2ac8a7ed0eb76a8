"""Versions, builds, images by digest, and releases."""

from __future__ import annotations

import functools
import os
import re
import subprocess  # nosec B404
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.database.revisions import History, read_label
from deploy.errors import UsageError

FIRST_VERSION = "0.1.0"
"""The next version of a repository without a version tag."""

SCHEMA_HEAD = "amani.schema.head"
_OCI = "org.opencontainers.image."

# https://semver.org/#is-there-a-suggested-regular-expression-regex-to-check-a-semver-string
_SEMVER = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@functools.total_ordering
@dataclass(frozen=True)
class Version:
    """A semantic version (SemVer 2.0), or a plain label such as `dev-1a2b3c4`.

    Semantic versions have the order of SemVer; labels come before all of them, by text. A leading
    `v` of a semantic version is dropped. `str()` returns the text. Raises `UsageError` if the text
    is neither.
    """

    text: str

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.text):
            raise UsageError(
                f"{self.text!r} is no version",
                hint="a version is like 1.4.2, v1.4.2, 1.5.0-rc.1 or a label like dev-1a2b3c4",
            )
        if self.text.startswith("v") and _SEMVER.fullmatch(self.text):
            object.__setattr__(self, "text", self.text[1:])

    def __str__(self) -> str:
        return self.text

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, Version) else NotImplemented

    @property
    def semantic(self) -> bool:
        return _SEMVER.fullmatch(self.text) is not None

    @property
    def stable(self) -> bool:
        """Whether it is semantic and without a pre-release part."""
        found = _SEMVER.fullmatch(self.text)
        return found is not None and found[4] is None

    @property
    def tag(self) -> str:
        """The version as an image tag, which cannot contain `+`."""
        return self.text.replace("+", "-")

    @functools.cached_property
    def _key(self) -> tuple[object, ...]:
        found = _SEMVER.fullmatch(self.text)
        if found is None:
            return (0, self.text)
        # SemVer 11: a pre-release comes before its release, and a number before text.
        parts = (found[4] or "").split(".")
        before = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)
        numbers = tuple(int(found[n]) for n in (1, 2, 3))
        return (1, numbers, found[4] is None, before, self.text)


@dataclass(frozen=True)
class BuildInfo:
    """The origin of an image. `sha` is the full commit, `time` is ISO 8601 in UTC."""

    version: Version
    sha: str
    time: str
    number: str
    branch: str
    dirty: bool
    tagged: bool
    """Whether the commit itself has the version as a tag."""

    @property
    def short_sha(self) -> str:
        """The first 12 digits of the commit, for image tags."""
        return self.sha[:12]

    @property
    def arguments(self) -> dict[str, str]:
        """The image's build arguments, by name."""
        return {
            "BUILD_VERSION": str(self.version),
            "BUILD_SHA": self.sha,
            "BUILD_TIME": self.time,
            "BUILD_NUMBER": self.number,
            "BUILD_BRANCH": self.branch,
        }

    def render_tags(self, templates: Sequence[str]) -> tuple[str, ...]:
        """Image tags from templates with `{sha}`, `{version}`, `{branch}`, `{number}`.

        A tag with an unknown part is omitted. So is a tag with `{version}` if the commit has no
        semantic version as a tag or the tree is dirty, since the image is not that version then.
        """
        exact = self.tagged and self.version.semantic and not self.dirty
        parts = {
            "sha": self.short_sha + ("-dirty" if self.dirty and self.sha else ""),
            "version": self.version.tag if exact else "",
            "branch": re.sub(r"[^A-Za-z0-9_.-]+", "-", self.branch).strip("-."),
            "number": self.number,
        }
        tags = [
            template.format_map(parts)[:128]
            for template in templates
            if all(parts[name] for name in re.findall(r"\{(.*?)\}", template))
        ]
        return tuple(dict.fromkeys(tags))

    @classmethod
    def of(cls, checkout: Path, environ: Mapping[str, str] | None = None) -> BuildInfo:
        """Read a checkout's state from git, and number and branch from GitHub Actions in CI.

        A commit tagged with a semantic version has that version. Any other has the next patch
        version with `dev.<n>`, n commits after the last tag. The time is the commit's own or, for
        a dirty tree, that of the newest change (`SOURCE_DATE_EPOCH` overrides both), so that the
        same tree gives the same image. A folder that is no repository has version 0.1.0-dev.0 and
        no commit. Raises `UsageError` if git is missing or fails.
        """
        environ = os.environ if environ is None else environ
        if not (checkout / ".git").exists():
            return cls(Version(f"{FIRST_VERSION}-dev.0"), "", _iso(0), "0", "", True, False)
        git = functools.partial(ask_git, checkout)
        log = git("log", "-1", "--format=%H %ct")
        sha, committed = log.split()
        changed = git("status", "--porcelain", "-z", "--no-renames", "--untracked=all").split("\0")
        paths = [checkout / line[3:] for line in changed if line]
        version, tagged = _version(git, sha)
        if paths:
            version = Version(f"{version}{'-' if version.stable else '.'}dirty")
        times = [int(p.stat().st_mtime) for p in paths if p.exists()]
        epoch = environ.get("SOURCE_DATE_EPOCH") or max([int(committed), *times])
        branch = environ.get("GITHUB_REF_NAME", "")
        if environ.get("GITHUB_REF_TYPE", "branch") != "branch" or not branch:
            branch = git("branch", "--show-current")
        return cls(
            version=version,
            sha=sha,
            time=_iso(int(epoch)),
            number=environ.get("GITHUB_RUN_NUMBER") or git("rev-list", "--count", "HEAD"),
            branch=branch,
            dirty=bool(paths),
            tagged=tagged,
        )


def find_same_content(checkout: Path) -> tuple[str, ...]:
    """The commits of all branches with the same files as the checked-out commit, that one first.

    A branch that is merged by squash or rebase has another commit with the same files.
    """
    head, tree = ask_git(checkout, "log", "-1", "--format=%H %T").split()
    lines = ask_git(checkout, "log", "--all", "--format=%H %T").splitlines()
    same = [commit for commit, held in map(str.split, lines) if held == tree]
    return tuple(dict.fromkeys([head, *same]))


def _version(git: functools.partial[str], sha: str) -> tuple[Version, bool]:
    here = [Version(t) for t in git("tag", "--points-at", "HEAD").split() if _SEMVER.fullmatch(t)]
    if here:
        return max(here), True
    merged = git("tag", "--merged", "HEAD", "--list", "v[0-9]*", "[0-9]*").split()
    stable = [tag for tag in merged if _SEMVER.fullmatch(tag) and Version(tag).stable]
    if not stable:
        count = git("rev-list", "--count", "HEAD")
        return Version(f"{FIRST_VERSION}-dev.{count}.g{sha[:7]}"), False
    last = max(stable, key=Version)
    major, minor, patch = str(Version(last)).partition("+")[0].split(".")
    count = git("rev-list", "--count", f"{last}..HEAD")
    return Version(f"{major}.{minor}.{int(patch) + 1}-dev.{count}.g{sha[:7]}"), False


def ask_git(checkout: Path, *arguments: str) -> str:
    """The output of git in a checkout. Raises `UsageError` if git is missing or fails."""
    try:
        done = subprocess.run(  # nosec B603
            ("git", "-C", str(checkout), *arguments), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise UsageError("git is not installed", hint="apt-get install git") from None
    if done.returncode:
        reason = done.stderr.strip() or f"ended with status {done.returncode}"
        raise UsageError(f"{checkout}: git {arguments[0]}: {reason}")
    return done.stdout.strip("\n")


def _iso(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class ImageRef:
    """An image by its content and never by a tag, which may move.

    `digest` is the registry's manifest digest or, for an image that was never pushed
    (`registered=False`), the engine's image id.
    """

    repository: str
    digest: str
    registered: bool = True

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise UsageError(f"{self.digest!r} is no image digest (sha256: and 64 hex digits)")

    @property
    def reference(self) -> str:
        """The image's name for the engine: `repository@digest`, or the image id."""
        return f"{self.repository}@{self.digest}" if self.registered else self.digest

    def __str__(self) -> str:
        return self.reference


@dataclass(frozen=True)
class Release:
    """A version, its image, and the schema that its code expects."""

    version: Version
    image: ImageRef
    schema_head: str
    revision: str
    """The commit."""
    created: str
    labels: Mapping[str, str]

    @property
    def history(self) -> History:
        """The revisions that its code knows."""
        return read_label(self.labels)

    @classmethod
    def from_labels(cls, image: ImageRef, labels: Mapping[str, str]) -> Release:
        """The release that an image's labels describe.

        A missing schema head means that the service has no database. Raises `UsageError` if there
        is no version: then it is no image of this service.
        """
        version = labels.get(_OCI + "version", "")
        if not version:
            raise UsageError(
                f"{image} carries no label {_OCI}version: it was not built by this deployer",
                hint="build it with `invoke image.build`, or give another --version",
            )
        return cls(
            version=Version(version),
            image=image,
            schema_head=labels.get(SCHEMA_HEAD, ""),
            revision=labels.get(_OCI + "revision", ""),
            created=labels.get(_OCI + "created", ""),
            labels=dict(labels),
        )
