"""Each test belongs to one suite, and the coverage of a suite must reach its limit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT
from workshop.pipeline import suite_job
from workshop.quality.suite_catalog import SERVER, SUITES

TESTS = ROOT / "tests"
MARK = re.compile(r"(?:@|marks=)pytest\.mark\.(\w+)")
SUMMARY = {"num_statements": 80, "num_branches": 20, "covered_lines": 80, "covered_branches": 6}


def test_each_suite_is_a_folder_with_tests():
    folders = {path.parts[0] for path in _test_files()}
    assert folders == set(SUITES)


def test_unit_tests_need_no_server():
    marked = {
        path: set(MARK.findall((TESTS / path).read_text())) & {"postgres", "engine", "fleet"}
        for path in _test_files()
        if path.parts[0] == "unit"
    }
    assert {path: markers for path, markers in marked.items() if markers} == {}


def _test_files() -> list[Path]:
    return [path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py"))]


def report(folder: Path, **files: dict[str, int]) -> Path:
    path = folder / "coverage.json"
    named = {name.replace("__", "/"): {"summary": each} for name, each in files.items()}
    path.write_text(json.dumps({"files": named}))
    return path


def test_lines_and_branches_count_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = report(tmp_path, amani_app__a=SUMMARY, deploy__b=SUMMARY | {"covered_lines": 0})
    suite_job.judge(found, {"amani_app": 86})
    assert "coverage of amani_app: 86.0 %" in capsys.readouterr().out
    with pytest.raises(GateRefused, match="deploy 6.0 % of 85 %"):
        suite_job.judge(found, {"amani_app": 86, "deploy": 85})


def test_a_package_without_measurements_has_no_coverage(tmp_path: Path):
    with pytest.raises(GateRefused, match="deploy 0.0 %"):
        suite_job.judge(report(tmp_path, amani_app__a=SUMMARY), {"deploy": 1})


def test_a_suite_without_data_is_named(tmp_path: Path):
    (tmp_path / ".coverage-unit").touch()
    with pytest.raises(UsageError, match="no coverage data of api"):
        suite_job.judge_suites(["unit", "api"], tmp_path, {})


def test_only_suites_with_a_server_get_the_given_one():
    given = {"DATABASE_URL": "postgresql://amani@127.0.0.1/amani", "HOME": "/root"}
    assert suite_job._environ("integration", given) == {
        "HOME": "/root",
        SERVER: given["DATABASE_URL"],
    }
    assert suite_job._environ("unit", given) == {"HOME": "/root"}
    assert suite_job._environ("api", {"DATABASE_URL": "sqlite://"}) == {}
