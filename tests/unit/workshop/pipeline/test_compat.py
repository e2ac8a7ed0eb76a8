"""Selection of the previous release, and checks before its trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from tests.support.releases import commit, git, release_repository
from tests.support.revisions import write_revision
from workshop.pipeline.compat import previous_release
from workshop.pipeline.compat.contract import Answers
from workshop.pipeline.compat.trial import run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return release_repository(tmp_path / "small")


def test_the_previous_release_is_the_newest_stable_tag_in_the_past(repository: Path):
    assert previous_release.find(repository).version == "1.1.0"  # c is of no release yet
    git(repository, "stash", "--include-untracked")
    assert previous_release.find(repository).version == "1.0.0"  # this is v1.1.0 itself
    git(repository, "stash", "pop")
    found = previous_release.find(repository, "v1.0.0")
    assert (found.version, found.history.head) == ("v1.0.0", "a")
    with pytest.raises(UsageError, match="--base=nowhere names no commit"):
        previous_release.find(repository, "nowhere")


def test_without_a_tag_it_is_the_newest_commit_with_another_schema_head(repository: Path):
    for tag in ("v1.0.0", "v1.1.0", "v2.0.0-rc.1"):
        git(repository, "tag", "--delete", tag)
    assert previous_release.find(repository).history.head == "b"
    commit(repository, "c")
    commit(repository, "nothing of the schema")
    assert previous_release.find(repository).history.head == "b"
    git(repository, "checkout", "--orphan", "young")
    commit(repository, "all at once")
    with pytest.raises(UsageError, match="no commit with another schema head") as refused:
        previous_release.find(repository)
    assert "--base=REF" in refused.value.hint


def test_the_same_schema_needs_no_trial(repository: Path):
    commit(repository, "c")
    heard: list[str] = []
    run(repository, base="HEAD", report=heard.append)
    assert heard == ["HEAD and this checkout need the same schema, c: there is nothing to try"]


def test_migrations_that_a_deploy_refuses_are_refused_before_a_build(repository: Path):
    write_revision(repository, "d", "c", "contract", "pass", "pass")
    with pytest.raises(GateRefused, match="adds c .expand. and removes in d .contract."):
        run(repository, report=lambda line: None)
    for name in ("b", "c", "d"):
        (repository / previous_release.VERSIONS / f"{name}_try.py").unlink()
    with pytest.raises(UsageError, match="1.1.0 has the schema head b, which this checkout's"):
        run(repository, report=lambda line: None)


def test_the_same_requests_must_have_the_same_statuses():
    before = Answers({"GET /wallets": [200, 200], "POST /escrows": [201, 422], "GET /me": [200]})
    assert before.differences(Answers(dict(before.statuses))) == []
    now = Answers({"GET /wallets": [200, 200], "POST /escrows": [500, 422]})
    assert before.differences(now) == [
        "POST /escrows: answered 201 (1), 422 (1), now 422 (1), 500 (1)",
        "GET /me: answered 200 (1), now nothing",
    ]
