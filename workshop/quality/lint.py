"""Run all static checks, report the outcome and time of each, and fail at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT, program

PYTHON = (
    "amani_app",
    "deploy",
    "workshop",
    "tests",
    "migrations",
    "tasks.py",
    "wsgi.py",
    "gunicorn.conf.py",
)


@dataclass(frozen=True)
class Check:
    """A static checker with its arguments; it fails by its exit status."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class LintResult:
    """The exit status and output of a check; `seconds` is wall time."""

    check: Check
    status: int
    output: str
    seconds: float


def run_all(root: Path = ROOT, report: Callable[[str], None] = print) -> None:
    """Run all checks in parallel. Raises `GateRefused` with the names of those that failed."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(lambda check: _run(check, root), checks(root)))
    for result in results:
        outcome = "ok" if result.status == 0 else "FAILED"
        report(f"{result.check.name:<20}{outcome:<8}{result.seconds:6.1f} s")
        if result.status != 0:
            report(result.output.rstrip())
    if failed := [result.check.name for result in results if result.status != 0]:
        hint = "Run ./inv format for black." if "black" in failed else ""
        raise GateRefused(f"lint: {', '.join(failed)} failed", hint=hint)


def checks(root: Path = ROOT) -> list[Check]:
    """The checks for the files in this checkout, the slowest first."""
    python = tuple(path for path in PYTHON if (root / path).exists())
    shipped = tuple(path for path in python if path not in {"tests", "migrations"})
    typed = tuple(
        path for path in python if path in {"amani_app", "deploy", "workshop", "tasks.py"}
    )
    found = [
        Check("mypy", (program("mypy"), *typed)),
        Check("bandit", (program("bandit"), "-q", "-c", "pyproject.toml", "-r", *shipped)),
        Check("flake8", (program("flake8"), *python)),
        Check("black", (program("black"), "--check", "--quiet", "--diff", *python)),
        Check(
            "import-linter",
            (program("lint-imports"), "--no-logo", "--no-cache", "--config", "setup.cfg"),
        ),
    ]
    if (root / "docs" / "architecture.md").is_file():
        found += [
            Check(name, (sys.executable, "-m", f"workshop.quality.{name}"))
            for name in ("prose", "architecture")
        ]
    if (root / "migrations" / "versions").is_dir():
        found.append(Check("migrations", (program("invoke"), "db.lint")))
    if scripts := shell_scripts(root):
        found.append(Check("shellcheck", (program("shellcheck"), *scripts)))
    if (root / ".github" / "workflows").is_dir():
        found += [
            Check(f"workflows: {name}", argv) for name, argv in workflow_linters(root).items()
        ]
    if dockerfiles := sorted(str(path.relative_to(root)) for path in root.glob("Dockerfile*")):
        found.append(Check("hadolint", (program("hadolint"), *dockerfiles)))
    return found


def workflow_linters(root: Path = ROOT) -> dict[str, tuple[str, ...]]:
    """Return the command lines of the linters for GitHub workflows, by name."""
    workflows = sorted(str(p.relative_to(root)) for p in root.glob(".github/workflows/*.yml"))
    schema = (program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows")
    zizmor = (program("zizmor"), "--offline", "--persona=pedantic", "--quiet", "--no-progress")
    return {
        "schema": (*schema, *workflows),
        "zizmor": (*zizmor, "--strict-collection", ".github"),
    }


def shell_scripts(root: Path = ROOT) -> list[str]:
    """Shell scripts among tracked and new files, known by `.sh` or by their first line.

    Raises `UsageError` if git fails.
    """
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    if listed.returncode != 0:
        raise UsageError(f"git cannot list the files of {root}: {listed.stderr.strip()}")
    return sorted(name for name in listed.stdout.split("\0") if name and _is_shell(root / name))


def format_all(root: Path = ROOT) -> None:
    """Format all Python files with black."""
    python = [path for path in PYTHON if (root / path).exists()]
    subprocess.run([program("black"), *python], cwd=root, check=True)


def _is_shell(path: Path) -> bool:
    if path.suffix == ".sh":
        return path.is_file()
    if path.suffix or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(80)
    return first.startswith(b"#!") and first.split()[-1].endswith((b"/sh", b"bash", b"/dash"))


def _run(check: Check, root: Path) -> LintResult:
    started = time.monotonic()
    done = subprocess.run(
        check.argv, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return LintResult(check, done.returncode, done.stdout, time.monotonic() - started)
