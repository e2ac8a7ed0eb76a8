"""Selection of the previous release, and checks before its trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from tests.support.releases import commit, git, release_repository
from tests.support.revisions import write_revision
from workshop.pipeline.compat import previous
from workshop.pipeline.compat.contract import Answers
from workshop.pipeline.compat.trial import run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return release_repository(tmp_path / "small")


def test_the_release_before_is_the_newest_stable_tag_in_the_past(repository: Path):
    assert previous.find(repository).version == "1.1.0"  # c is of no release yet
    git(repository, "stash", "--include-untracked")
    assert previous.find(repository).version == "1.0.0"  # this is v1.1.0 itself
    git(repository, "stash", "pop")
    found = previous.find(repository, "v1.0.0")
    assert (found.version, found.history.head) == ("v1.0.0", "a")
    with pytest.raises(UsageError, match="--base=nowhere names no commit"):
        previous.find(repository, "nowhere")


def test_without_a_tag_it_is_the_newest_commit_whose_migrations_end_elsewhere(repository: Path):
    for tag in ("v1.0.0", "v1.1.0", "v2.0.0-rc.1"):
        git(repository, "tag", "--delete", tag)
    assert previous.find(repository).history.head == "b"
    commit(repository, "c")
    commit(repository, "nothing of the schema")
    assert previous.find(repository).history.head == "b"
    git(repository, "checkout", "--orphan", "young")
    commit(repository, "all at once")
    with pytest.raises(UsageError, match="no commit whose migrations end elsewhere") as refused:
        previous.find(repository)
    assert "--base=REF" in refused.value.hint


def test_one_schema_needs_no_trial(repository: Path):
    commit(repository, "c")
    heard: list[str] = []
    run(repository, base="HEAD", report=heard.append)
    assert heard == ["HEAD and this checkout need one schema, c: nothing to try"]


def test_a_history_that_no_deploy_would_take_is_refused_before_anything_is_built(repository: Path):
    write_revision(repository, "d", "c", "contract", "pass", "pass")
    with pytest.raises(GateRefused, match="brings c .expand. and takes away in d .contract."):
        run(repository, report=lambda line: None)
    for name in ("b", "c", "d"):
        (repository / previous.VERSIONS / f"{name}_try.py").unlink()
    with pytest.raises(UsageError, match="1.1.0 is at b, which this checkout's migrations"):
        run(repository, report=lambda line: None)


def test_the_same_requests_must_be_answered_as_before():
    before = Answers({"GET /wallets": [200, 200], "POST /escrows": [201, 422], "GET /me": [200]})
    assert before.differences(Answers(dict(before.statuses))) == []
    now = Answers({"GET /wallets": [200, 200], "POST /escrows": [500, 422]})
    assert before.differences(now) == [
        "POST /escrows: answered 201 (1), 422 (1), now 422 (1), 500 (1)",
        "GET /me: answered 200 (1), now nothing",
    ]
