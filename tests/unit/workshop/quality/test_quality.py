"""The static checks: each runs and is reported; a run without tests fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT
from workshop.quality.lint import run_all, shell_scripts
from workshop.quality.suite_run import run_suite


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with this project's configuration that passes all checks."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in (".flake8", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "setup.cfg").write_text(
        "[mypy]\nstrict = True\n"
        "[importlinter]\nroot_packages =\n    deploy\ninclude_external_packages = True\n"
        "[importlinter:contract:one]\nname = one\ntype = forbidden\n"
        "source_modules =\n    deploy\nforbidden_modules =\n    os\n"
    )
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / "tool").write_text("#!/bin/sh\necho ready\n")
    (tmp_path / "Dockerfile").write_text("FROM python:3.13-slim-trixie\n")
    return tmp_path


def failures(checkout: Path) -> tuple[list[str], str]:
    """The names of the failed checks, and the report."""
    reported: list[str] = []
    try:
        run_all(checkout, reported.append)
    except GateRefused as error:
        failed = error.message.removeprefix("lint: ").removesuffix(" failed").split(", ")
        return failed, "\n".join(reported)
    return [], "\n".join(reported)


def test_all_failed_checks_are_named_and_the_others_run(checkout: Path):
    assert failures(checkout)[0] == []

    (checkout / "deploy" / "bad.py").write_text("import os\ndef f(x): return eval(x) + undefined\n")
    (checkout / "tool").write_text("#!/bin/sh\necho $1\n")
    (checkout / "Dockerfile").write_text("FROM python\n")
    failed, reported = failures(checkout)

    expected = {"mypy", "bandit", "flake8", "black", "import-linter", "shellcheck", "hadolint"}
    assert set(failed) == expected
    for words in ("no-untyped-def", "B307", "F401", "SC2086", "DL3006"):
        assert words in reported


def test_shell_scripts_are_known_by_name_or_first_line(checkout: Path):
    (checkout / "a.sh").write_text("true\n")
    (checkout / "b").write_text("#!/usr/bin/env bash\n")
    (checkout / "c").write_text("#!/usr/bin/env python3\n")
    (checkout / ".gitignore").write_text("ignored.sh\n")
    (checkout / "ignored.sh").write_text("true\n")
    assert shell_scripts(checkout) == ["a.sh", "b", "tool"]


def test_a_folder_outside_of_git_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="git cannot list"):
        shell_scripts(tmp_path)


def test_a_suite_without_tests_fails(tmp_path: Path):
    assert run_suite([str(tmp_path)], quick=True) == 5


@pytest.mark.parametrize(
    ("arguments", "handed_over"),
    [
        ([], "rollback"),
        (["v1.2.3"], "rollback --version=v1.2.3"),
        (["v1.2.3", "--auto-confirm"], "rollback --version=v1.2.3 --auto-confirm"),
        (["--auto-confirm"], "rollback --auto-confirm"),
    ],
)
def test_the_runbooks_script_is_the_rollback_task(tmp_path: Path, arguments, handed_over):
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "rollback.sh", tmp_path / "scripts")
    (tmp_path / "inv").write_text('#!/bin/sh\necho "$@"\nexit 4\n')
    (tmp_path / "inv").chmod(0o755)
    done = subprocess.run([script, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (4, handed_over)
