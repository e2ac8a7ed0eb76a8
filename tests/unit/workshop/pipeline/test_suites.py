"""Each test has one suite, and a suite's coverage is held to what it must reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.checkout import ROOT
from deploy.errors import GateRefused, UsageError
from deploy.pipeline import suites, testing

SUMMARY = {"num_statements": 80, "num_branches": 20, "covered_lines": 80, "covered_branches": 6}


@pytest.mark.parametrize(
    ("path", "markers", "suite"),
    [
        ("tests/service/domain/test_money.py", [], "unit"),
        ("tests/deploy/planner/test_blue_green.py", [], "unit"),
        ("tests/service/test_store.py", ["postgres"], "integration"),
        ("tests/deploy/test_local.py", ["engine"], "integration"),
        ("tests/service/test_document.py", [], "api"),
        ("tests/service/test_escrow_api.py", ["postgres"], "api"),
        ("tests/service/test_migrations.py", ["postgres"], "migrations"),
        ("tests/service/test_image.py", ["engine"], "image"),
        ("tests/fleet/test_outages.py", ["fleet", "engine"], "e2e"),
    ],
)
def test_a_test_belongs_to_one_suite(path: str, markers: list[str], suite: str):
    assert suites.classify(path, markers) == suite
    assert (ROOT / path).is_file()


def test_files_that_name_a_suite_exist():
    named = [*suites._HOMES, *(f"tests/service/{name}" for name in suites._API)]
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert set(suites._HOMES.values()) <= set(suites.SUITES)


def report(folder: Path, **files: dict[str, int]) -> Path:
    path = folder / "coverage.json"
    named = {name.replace("__", "/"): {"summary": each} for name, each in files.items()}
    path.write_text(json.dumps({"files": named}))
    return path


def test_lines_and_branches_count_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = report(tmp_path, amani_app__a=SUMMARY, deploy__b=SUMMARY | {"covered_lines": 0})
    testing.judge(found, {"amani_app": 86})
    assert "coverage of amani_app: 86.0 %" in capsys.readouterr().out
    with pytest.raises(GateRefused, match="deploy 6.0 % of 85 %"):
        testing.judge(found, {"amani_app": 86, "deploy": 85})


def test_a_wing_that_was_not_measured_has_none(tmp_path: Path):
    with pytest.raises(GateRefused, match="deploy 0.0 %"):
        testing.judge(report(tmp_path, amani_app__a=SUMMARY), {"deploy": 1})


def test_a_suite_without_data_is_named(tmp_path: Path):
    (tmp_path / ".coverage-unit").touch()
    with pytest.raises(UsageError, match="no coverage data of api"):
        testing.judge_suites(["unit", "api"], tmp_path, {})


def test_only_suites_with_a_server_get_the_given_one():
    given = {"DATABASE_URL": "postgresql://amani@127.0.0.1/amani", "HOME": "/root"}
    assert testing._environ("integration", given) == {
        "HOME": "/root",
        testing.SERVER: given["DATABASE_URL"],
    }
    assert testing._environ("unit", given) == {"HOME": "/root"}
    assert testing._environ("api", {"DATABASE_URL": "sqlite://"}) == {}
