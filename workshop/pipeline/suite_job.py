"""Run one test suite as a CI job does: install what it needs, write a report and coverage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.errors import GateRefused, UsageError
from deploy.images.bases import ensure_bases
from deploy.machine.checkout import ROOT, program
from deploy.machine.engine import ensure_engine
from deploy.machine.packages import ensure_packages
from workshop.quality.suite_catalog import SERVER, WITH_ENGINE
from workshop.quality.suite_run import DISTRIBUTION, PACKAGES, workers

SHIPPED = ("amani_app", "deploy")
"""The packages that are held to a share. Benchmarks run on practice hosts, beyond measurement."""

MEASURED = (*SHIPPED, "workshop")


def run_suite(suite: str, *, reports: Path, coverage: bool = False) -> None:
    """Run one suite; write JUnit XML and, with `coverage`, its data, XML and HTML to `reports`.

    Raises `GateRefused` if a test fails, `UsageError` if the suite has no tests.
    """
    ensure_packages(PACKAGES, f"the {suite} tests")
    if suite in WITH_ENGINE:
        ensure_engine()
        ensure_bases()
    sys.stdout.flush()
    environ = _environ(suite, os.environ) | {"COVERAGE_FILE": str(_data(reports, suite))}
    argv = _argv(suite, reports, coverage=coverage)
    status = subprocess.run(argv, cwd=ROOT, env=environ).returncode
    if status == 5:
        raise UsageError(f"the {suite} suite has no tests")
    if status != 0:
        raise GateRefused(f"the {suite} tests failed (pytest ended with code {status})")


def judge_suites(suites: Sequence[str], reports: Path, least: Mapping[str, float]) -> None:
    """Print the coverage of each package by these suites together; write it as XML to `reports`.

    Raises `GateRefused` if a package has less than its `least` percent, `UsageError` if the data of
    a suite is missing.
    """
    data = [_data(reports, suite) for suite in suites]
    if missing := [suite for suite, path in zip(suites, data, strict=True) if not path.is_file()]:
        hint = "run them first with coverage: " + ", ".join(f"ci.{name}" for name in missing)
        raise UsageError(f"no coverage data of {', '.join(missing)}", hint=hint)
    environ = dict(os.environ, COVERAGE_FILE=str(reports / ".coverage-together"))
    found = reports / "coverage.json"
    for words in (
        ["combine", "--keep", "--quiet", *map(str, data)],
        ["json", "--quiet", "-o", str(found)],
        ["xml", "--quiet", "-o", str(reports / "coverage.xml")],
    ):
        subprocess.run([program("coverage"), *words], cwd=ROOT, env=environ, check=True)
    judge(found, least)


def judge(report: Path, least: Mapping[str, float]) -> None:
    """Print each package's coverage. Raises `GateRefused` if one has less than its `least`."""
    files: Mapping[str, Mapping[str, Mapping[str, float]]]
    files = json.loads(report.read_text())["files"]
    too_low = []
    for package in MEASURED:
        reached = percentage([f["summary"] for name, f in files.items() if _within(package, name)])
        wanted = least.get(package)
        limit = f"at least {wanted:g} %" if wanted is not None else "no limit"
        print(f"coverage of {package}: {reached:.1f} % of lines and branches ({limit})")
        if wanted is not None and reached < wanted:
            too_low.append(f"{package} {reached:.1f} % of {wanted:g} %")
    if too_low:
        raise GateRefused(f"the coverage is too low: {', '.join(too_low)}")


def percentage(summaries: Sequence[Mapping[str, float]]) -> float:
    """The covered share of lines and branches in percent; 0 if there are none."""
    there = sum(s["num_statements"] + s["num_branches"] for s in summaries)
    taken = sum(s["covered_lines"] + s["covered_branches"] for s in summaries)
    return 100 * taken / there if there else 0.0


def _within(package: str, file: str) -> bool:
    return Path(file).parts[:1] == (package,)


def _data(reports: Path, suite: str) -> Path:
    return reports / f".coverage-{suite}"


def _argv(suite: str, reports: Path, *, coverage: bool) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "-q", f"tests/{suite}", f"--numprocesses={workers()}"]
    argv += [*DISTRIBUTION, "--durations=5"]
    argv += [f"--junitxml={reports}/junit-{suite}.xml"]
    if coverage:
        argv += [f"--cov={package}" for package in MEASURED] + ["--cov-branch"]
        argv += [
            f"--cov-report=xml:{reports}/coverage-{suite}.xml",
            f"--cov-report=json:{reports}/coverage-{suite}.json",
            f"--cov-report=html:{reports}/coverage-{suite}",
        ]
    return argv


def _environ(suite: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job: the database that it is given is renamed to `SERVER`."""
    kept = dict(environ)
    given = kept.pop("DATABASE_URL", "")
    if suite != "unit" and given.startswith("postgresql"):
        kept[SERVER] = given
    return kept
