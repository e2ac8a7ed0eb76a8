"""Trials of a release on the schema of the next one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.database.checkout import read_checkout
from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT
from tests.support.releases import commit, git, release_repository
from tests.support.revisions import ADD, DROP, checkout, write_revision
from workshop.pipeline.compat import previous_release
from workshop.pipeline.compat.trial import PreparedTrial, prepare, run

HEAD = read_checkout(ROOT / previous_release.VERSIONS).head


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return release_repository(tmp_path / "small")


@pytest.mark.engine
def test_an_image_that_cannot_be_pulled_is_reported(repository: Path):
    with pytest.raises(UsageError, match="localhost:1/amani:1.1.0 cannot be pulled"):
        run(repository, image="localhost:1/amani:1.1.0", report=lambda line: None)


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
