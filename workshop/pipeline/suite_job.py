"""One suite of the tests as a job runs it: what it needs brought in, a report, coverage."""

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

WINGS = ("amani_app", "deploy", "workshop")


def run_suite(suite: str, *, reports: Path, coverage: bool = False) -> None:
    """Run one suite; JUnit XML and, with `coverage`, its data, XML and HTML go to `reports`.

    Raises `GateRefused` where a test fails, `UsageError` where there was none to run.
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
        raise UsageError(f"the {suite} suite holds no tests")
    if status != 0:
        raise GateRefused(f"the {suite} tests failed (pytest ended with {status})")


def judge_suites(suites: Sequence[str], reports: Path, least: Mapping[str, float]) -> None:
    """Print what these suites together cover of each wing; XML of it goes to `reports`.

    Raises `GateRefused` where a wing has less than its `least` percent, `UsageError` where a
    suite left no data.
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
    """Print each wing's coverage; raises `GateRefused` where one has less than its `least`."""
    files: Mapping[str, Mapping[str, Mapping[str, float]]]
    files = json.loads(report.read_text())["files"]
    too_little = []
    for wing in WINGS:
        reached = percentage([f["summary"] for name, f in files.items() if _within(wing, name)])
        wanted = least.get(wing)
        limit = f"at least {wanted:g} %" if wanted is not None else "no limit for this suite alone"
        print(f"coverage of {wing}: {reached:.1f} % of lines and branches ({limit})")
        if wanted is not None and reached < wanted:
            too_little.append(f"{wing} {reached:.1f} % of {wanted:g} %")
    if too_little:
        raise GateRefused(f"too little is covered: {', '.join(too_little)}")


def percentage(summaries: Sequence[Mapping[str, float]]) -> float:
    """Lines and branches that were taken, of those that there are; 0 where there are none."""
    there = sum(s["num_statements"] + s["num_branches"] for s in summaries)
    taken = sum(s["covered_lines"] + s["covered_branches"] for s in summaries)
    return 100 * taken / there if there else 0.0


def _within(wing: str, file: str) -> bool:
    return Path(file).parts[:1] == (wing,)


def _data(reports: Path, suite: str) -> Path:
    return reports / f".coverage-{suite}"


def _argv(suite: str, reports: Path, *, coverage: bool) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "-q", f"tests/{suite}", f"--numprocesses={workers()}"]
    argv += [*DISTRIBUTION, "--durations=5"]
    argv += [f"--junitxml={reports}/junit-{suite}.xml"]
    if coverage:
        argv += [f"--cov={wing}" for wing in WINGS] + ["--cov-branch"]
        argv += [
            f"--cov-report=xml:{reports}/coverage-{suite}.xml",
            f"--cov-report=json:{reports}/coverage-{suite}.json",
            f"--cov-report=html:{reports}/coverage-{suite}",
        ]
    return argv


def _environ(suite: str, environ: Mapping[str, str]) -> dict[str, str]:
    """A job's environment: of a database given to it, only the tests' own name is left."""
    kept = dict(environ)
    given = kept.pop("DATABASE_URL", "")
    if suite != "unit" and given.startswith("postgresql"):
        kept[SERVER] = given
    return kept
