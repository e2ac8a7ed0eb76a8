"""Versions, builds and image references."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.state.release import BuildInfo, ImageRef, Release, Version, find_same_content

DIGEST = "sha256:" + "ab" * 32

# In the order of https://semver.org/#spec-item-11, labels first.
ORDERED = [
    "dev-1a2b3c4",
    "staging",
    "0.9.9",
    "1.0.0-0.3.7",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-dev.3.g1a2b3c4",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
]


def test_versions_are_ordered_by_semver() -> None:
    shuffled = [Version(text) for text in ORDERED]
    random.Random(7).shuffle(shuffled)
    assert [str(version) for version in sorted(shuffled)] == ORDERED
    for lower, higher in itertools.combinations(map(Version, ORDERED), 2):
        assert lower < higher and higher > lower and lower != higher


def test_leading_v_is_dropped_only_from_semantic_versions() -> None:
    assert Version("v1.2.3") == Version("1.2.3")
    assert str(Version("v1.2")) == "v1.2"


@pytest.mark.parametrize(
    ("text", "semantic", "stable"),
    [
        ("1.2.3", True, True),
        ("v1.2.3", True, True),
        ("1.2.3+5", True, True),
        ("1.2.3-rc.1", True, False),
        ("1.2", False, False),
        ("01.2.3", False, False),
        ("1.2.3-01", False, False),
        ("latest", False, False),
    ],
)
def test_semantic_versions_are_distinguished_from_labels(
    text: str, semantic: bool, stable: bool
) -> None:
    assert (Version(text).semantic, Version(text).stable) == (semantic, stable)


@pytest.mark.parametrize("text", ["", " ", "a b", "-x", "1.2.3\n", "a/b", "ü", "x" * 129])
def test_invalid_version_is_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="is no version"):
        Version(text)


def test_version_tag_contains_no_plus() -> None:
    assert Version("1.2.3+build.5").tag == "1.2.3-build.5"


class Checkout:
    """A git repository made for one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environ = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_DATE": "2026-03-01T12:00:00Z",
            "GIT_COMMITTER_DATE": "2026-03-01T12:00:00Z",
        }
        settings = ("-c", "user.name=A", "-c", "user.email=a@b.test")
        done = subprocess.run(
            ["git", "-C", str(self.root), *settings, *arguments],
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, *tags: str) -> str:
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        for tag in tags:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")

    def read(self, **environ: str) -> BuildInfo:
        return BuildInfo.of(self.root, environ)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_tagged_commit_has_the_tags_version(checkout: Checkout) -> None:
    sha = checkout.commit("v1.4.2")
    build = checkout.read()
    assert build == BuildInfo(
        version=Version("1.4.2"),
        sha=sha,
        time="2026-03-01T12:00:00Z",
        number="1",
        branch="main",
        dirty=False,
        tagged=True,
    )


def test_highest_of_several_tags_counts(checkout: Checkout) -> None:
    checkout.commit("v1.4.2-rc.1", "v1.4.2", "nightly", "v1.4")
    assert str(checkout.read().version) == "1.4.2"


def test_later_commit_precedes_the_next_patch(checkout: Checkout) -> None:
    checkout.commit("v1.4.2")
    checkout.commit("v1.5.0-rc.1")
    sha = checkout.commit()
    build = checkout.read()
    assert str(build.version) == f"1.4.3-dev.2.g{sha[:7]}"
    assert not build.tagged and Version("1.4.2") < build.version < Version("1.4.3")


def test_commit_before_any_tag_precedes_the_first_version(checkout: Checkout) -> None:
    checkout.commit()
    sha = checkout.commit()
    assert str(checkout.read().version) == f"0.1.0-dev.2.g{sha[:7]}"


@pytest.mark.parametrize(
    ("tag", "expected"), [("v1.0.0", "1.0.0-dirty"), ("v1.0.0-rc.1", "1.0.0-rc.1.dirty")]
)
def test_changed_tree_is_marked(checkout: Checkout, tag: str, expected: str) -> None:
    checkout.commit(tag)
    (checkout.root / "new").write_text("x")
    os.utime(checkout.root / "new", (1_900_000_000, 1_900_000_000))
    build = checkout.read()
    assert build.dirty and str(build.version) == expected and build.version.semantic
    assert build.time == "2030-03-17T17:46:40Z"


def test_same_tree_gives_the_same_build(checkout: Checkout) -> None:
    checkout.commit()
    (checkout.root / "new").write_text("x")
    assert checkout.read() == checkout.read()


def test_pipeline_build_has_number_branch_and_time(checkout: Checkout) -> None:
    checkout.commit()
    build = checkout.read(
        GITHUB_RUN_NUMBER="417", GITHUB_REF_NAME="feature/x", SOURCE_DATE_EPOCH="1000000000"
    )
    assert (build.number, build.branch, build.time) == ("417", "feature/x", "2001-09-09T01:46:40Z")


def test_pipeline_on_a_tag_names_no_branch(checkout: Checkout) -> None:
    checkout.commit("v1.0.0")
    checkout.git("checkout", "--quiet", "--detach")
    assert checkout.read(GITHUB_REF_NAME="v1.0.0", GITHUB_REF_TYPE="tag").branch == ""


def test_commits_of_the_same_files_are_found_on_every_branch(checkout: Checkout) -> None:
    (checkout.root / "file").write_text("1")
    checkout.git("add", "file")
    first = checkout.commit()
    checkout.git("switch", "--quiet", "--create", "develop")
    (checkout.root / "file").write_text("2")
    checkout.git("add", "file")
    second = checkout.commit()
    checkout.git("switch", "--quiet", "main")
    empty = checkout.commit()
    assert find_same_content(checkout.root) == (empty, first)
    checkout.git("merge", "--quiet", "--squash", "develop")
    merged = checkout.commit()
    assert find_same_content(checkout.root) == (merged, second)


def test_folder_without_git_still_builds(tmp_path: Path) -> None:
    build = BuildInfo.of(tmp_path, {})
    assert str(build.version) == "0.1.0-dev.0" and build.dirty and build.sha == ""


def test_repository_without_a_commit_is_rejected(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="git log: fatal"):
        checkout.read()


def build_of(**changes: object) -> BuildInfo:
    values: dict[str, object] = {
        "version": Version("1.4.2"),
        "sha": "0123456789abcdef" * 2 + "01234567",
        "time": "2026-03-01T12:00:00Z",
        "number": "7",
        "branch": "main",
        "dirty": False,
        "tagged": True,
    }
    return BuildInfo(**{**values, **changes})  # type: ignore[arg-type]


PRODUCTION = ("latest", "prod-{sha}", "{branch}-{sha}", "{version}", "build-{number}")


@pytest.mark.parametrize(
    ("build", "tags"),
    [
        (
            build_of(),
            ("latest", "prod-0123456789ab", "main-0123456789ab", "1.4.2", "build-7"),
        ),
        (build_of(tagged=False), ("latest", "prod-0123456789ab", "main-0123456789ab", "build-7")),
        (
            build_of(branch="", version=Version("1.5.0-rc.1")),
            ("latest", "prod-0123456789ab", "1.5.0-rc.1", "build-7"),
        ),
        (
            build_of(branch="feature/é x", dirty=True),
            (
                "latest",
                "prod-0123456789ab-dirty",
                "feature-x-0123456789ab-dirty",
                "build-7",
            ),
        ),
        (build_of(sha="", branch="", tagged=False, number=""), ("latest",)),
    ],
)
def test_tags_depend_on_known_build_information(build: BuildInfo, tags: tuple[str, ...]) -> None:
    assert build.render_tags(PRODUCTION) == tags


def test_image_is_named_by_digest() -> None:
    image = ImageRef("ghcr.io/a/b", DIGEST)
    assert str(image) == image.reference == f"ghcr.io/a/b@{DIGEST}"
    assert str(ImageRef("a", DIGEST, registered=False)) == DIGEST


@pytest.mark.parametrize("digest", ["", "latest", "sha256:abc", DIGEST.upper(), DIGEST + "0"])
def test_image_without_a_digest_is_rejected(digest: str) -> None:
    with pytest.raises(UsageError, match="is no image digest"):
        ImageRef("a", digest)


def test_release_is_read_from_labels() -> None:
    image = ImageRef("a", DIGEST)
    labels = {
        "org.opencontainers.image.version": "v1.4.2",
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.created": "2026-03-01T12:00:00Z",
        "amani.schema.head": "0003",
    }
    release = Release.from_labels(image, labels)
    assert release == Release(
        Version("1.4.2"), image, "0003", "abc", "2026-03-01T12:00:00Z", labels
    )


def test_image_of_another_application_is_rejected() -> None:
    with pytest.raises(UsageError, match="carries no label org.opencontainers.image.version"):
        Release.from_labels(ImageRef("a", DIGEST), {})
