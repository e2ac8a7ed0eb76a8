"""The trial of a checkout and its previous release: an expand passes, a breaking contract fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.database.checkout import read_checkout
from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT
from tests.support.revisions import ADD, DROP, checkout, write_revision
from workshop.pipeline.compat import previous_release
from workshop.pipeline.compat.contract import Answers
from workshop.pipeline.compat.trial import PreparedTrial, prepare, run

HEAD = read_checkout(ROOT / previous_release.VERSIONS).head


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def commit(folder: Path, message: str, tag: str = "") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "-m", message)
    if tag:
        git(folder, "tag", tag)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Revisions a (v1.0.0), b (v1.1.0) and c, which is not committed."""
    folder = tmp_path / "small"
    (folder / previous_release.VERSIONS).mkdir(parents=True)
    git(folder.parent, "init", "--quiet", str(folder))
    write_revision(folder, "a", "", "expand", "pass", "pass")
    commit(folder, "a", "v1.0.0")
    write_revision(folder, "b", "a", "expand", "pass", "pass")
    commit(folder, "b", "v1.1.0")
    git(folder, "tag", "v2.0.0-rc.1", "v1.0.0")
    write_revision(folder, "c", "b", "expand", "pass", "pass")
    return folder


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


@pytest.mark.engine
def test_an_image_that_cannot_be_pulled_is_reported(repository: Path):
    with pytest.raises(UsageError, match="localhost:1/amani:1.1.0 cannot be pulled"):
        run(repository, image="localhost:1/amani:1.1.0", report=lambda line: None)


def test_the_same_requests_must_have_the_same_statuses():
    before = Answers({"GET /wallets": [200, 200], "POST /escrows": [201, 422], "GET /me": [200]})
    assert before.differences(Answers(dict(before.statuses))) == []
    now = Answers({"GET /wallets": [200, 200], "POST /escrows": [500, 422]})
    assert before.differences(now) == [
        "POST /escrows: answered 201 (1), 422 (1), now 422 (1), 500 (1)",
        "GET /me: answered 200 (1), now nothing",
    ]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service as v1.0.0, which has a column that its code does not use."""
    folder = checkout(
        tmp_path_factory.mktemp("released") / "service",
        ("a001", HEAD, "expand", ADD, DROP),
    )
    (folder / "docs").mkdir()
    shutil.copy2(ROOT / "docs/api.md", folder / "docs")
    git(folder.parent, "init", "--quiet", str(folder))
    commit(folder, "a release", "v1.0.0")
    return folder


@pytest.fixture(scope="module")
def prepared(released: Path) -> Iterator[PreparedTrial]:
    """The image of v1.0.0, a server, and the result of v1.0.0 on its own schema, made once."""
    found = replace(previous_release.find(released, "v1.0.0"), version="1.0.0")
    with prepare(released, found) as trial:
        yield trial


NEW_TABLE = 'op.create_table("notes", sa.Column("id", sa.BigInteger(), primary_key=True))'


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_a_release_that_only_adds_to_the_schema_passes(released: Path, prepared: PreparedTrial):
    path = write_revision(released, "a002", "a001", "expand", NEW_TABLE, 'op.drop_table("notes")')
    heard: list[str] = []
    try:
        run(released, report=heard.append, prepared=prepared)
    finally:
        path.unlink()
    # With the worker and the payment provider's sandbox it uses all tables except the new one.
    used = re.search(r"it used (\d+) of (\d+) tables, all but notes$", heard[2])
    assert used and int(used[1]) == int(used[2]) - 1
    assert heard == [
        "between 1.0.0 (schema a001) and this checkout: a002 (expand)",
        "1.0.0: its own API tests cannot be run: it has no tests/api and no tests/service",
        f"1.0.0 on a002: same answers as on a001; {used[0]}",
        "this checkout on a001: unready, no change, ready after its migrations",
        "the data of 1.0.0 is correct for both on a002",
        "1.0.0 runs on a002, and this checkout keeps to its schema",
    ]


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_a_release_that_drops_a_column_in_use_is_refused(released: Path, prepared: PreparedTrial):
    """It also drops a column that the previous release does not use, which is allowed."""
    up = f'{DROP}\n    op.drop_column("users", "role")'
    path = write_revision(released, "a002", "a001", "contract", up, ADD)
    heard: list[str] = []
    try:
        with pytest.raises(GateRefused, match="1.0.0 does not run on the schema a002") as refused:
            run(released, report=heard.append, prepared=prepared)
    finally:
        path.unlink()
    assert heard[-1] == "this checkout on a001: serves before the contract migrations"
    assert "a002: the previous release must not use what a contract removes" in refused.value.hint
