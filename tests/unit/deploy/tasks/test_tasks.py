"""The command line: help, conversion of options, errors and exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.machine.checkout import ROOT

INVOKE = str(Path(sys.prefix, "bin", "invoke"))
TASKS = '''
from invoke.collection import Collection
from deploy.errors import GateRefused, Locked
from deploy.tasks.surface import task

@task(help={"times": "how often", "share": "how much"})
def count(context, times: int = 3, share: float | None = None) -> None:
    """Count."""
    print(repr((times, share)))

@task()
def fail(context, how: str = "gate") -> None:
    """Fail."""
    if how == "interrupt":
        raise KeyboardInterrupt
    raise {"gate": GateRefused, "lock": Locked, "defect": ValueError}[how](*MESSAGES[how])

class Refused(GateRefused):
    def __init__(self, message):
        super().__init__(message, hint="free some space\\nand try again")

GateRefused, MESSAGES = Refused, {"gate": ["too full"], "lock": ["ada holds it"], "defect": ["bug"]}
namespace = Collection(count, fail)
'''


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "tasks.py").write_text(TASKS)
    environment = dict(os.environ, PYTHONPATH=str(ROOT))

    def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [INVOKE, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return invoke


def test_the_list_of_tasks_loads_no_slow_library():
    program = (
        "import sys; from invoke.main import program\n"
        "try: program.run(['invoke', '--list'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listing, _, loaded = done.stdout.partition("loaded:")
    slow = {"docker", "paramiko", "fabric", "pydantic", "requests", "rich", "cryptography"}
    assert not slow & set(loaded.split())
    assert "lint" in listing


def test_every_task_has_a_summary():
    listing = subprocess.run(
        [INVOKE, "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tasks = re.findall(r"^  (\S+)(?: \(.*\))?(.*)$", listing, re.MULTILINE)
    assert len(tasks) > 3
    assert [name for name, summary in tasks if not summary.strip()] == []


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [([], "(3, None)"), (["--times=7"], "(7, None)"), (["--share", "0.5"], "(3, 0.5)")],
)
def test_numbers_are_converted(run, arguments, printed):
    done = run("count", *arguments)
    assert (done.returncode, done.stdout.strip()) == (0, printed)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--times=many", "error: --times takes a whole number, not 'many'"),
        ("--share=half", "error: --share takes a number, not 'half'"),
    ],
)
def test_a_value_that_is_not_a_number_is_wrong_usage(run, argument, message):
    done = run("count", argument)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", message)


@pytest.mark.parametrize(
    ("how", "status", "printed"),
    [
        ("gate", 3, "error: too full\n  free some space\n  and try again\n"),
        ("lock", 4, "error: ada holds it\n"),
        ("interrupt", 130, "interrupted\n"),
    ],
)
def test_a_deploy_error_ends_with_its_exit_code_and_no_traceback(run, how, status, printed):
    done = run("fail", f"--how={how}")
    assert (done.returncode, done.stderr) == (status, printed)


def test_unexpected_exception_keeps_its_traceback(run):
    done = run("fail", "--how=defect")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ValueError: bug" in done.stderr


def test_generated_short_flags_are_refused(run):
    assert run("count", "-t", "5").returncode != 0


def test_task_named_twice_runs_twice(run, tmp_path):
    (tmp_path / "invoke.yaml").write_text((ROOT / "invoke.yaml").read_text())
    assert run("count", "count").stdout == "(3, None)\n" * 2
