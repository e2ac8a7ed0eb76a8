"""Run the test suite on this machine: install what it needs, then start pytest."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.images.bases import ensure_bases
from deploy.machine.checkout import ROOT
from deploy.machine.engine import ensure_engine
from deploy.machine.packages import ensure_packages
from workshop.quality import changed_tests, suite_order
from workshop.quality.suite_catalog import PROFILE, WITH_ENGINE

PACKAGES = (
    "age",
    "busybox-static",
    "chromium",
    "chromium-driver",
    "git",
    "openssh-client",
    "openssh-server",
    "postgresql",
    "prometheus",
    "prometheus-alertmanager",
    "redis-server",
    "pgbouncer",
    "wrk",
    "zstd",
)
QUICK = "not engine and not fleet"
DISTRIBUTION = ("--dist=loadfile", "--no-loadscope-reorder")
"""A file's tests stay on one worker, so its fixtures are set up once; files start in the order of
the collection, the longest first (`workshop.quality.suite_order`)."""
NO_TESTS = 5
"""pytest's exit code if it ran no test."""


def workers() -> int:
    """The number of test processes: 1.5 for each processor, since many tests wait for I/O."""
    return math.ceil(1.5 * len(os.sched_getaffinity(0)))


def run_suite(
    paths: Sequence[str] = (),
    *,
    quick: bool = False,
    explore: bool = False,
    matching: str = "",
    durations: Path | None = None,
) -> int:
    """Run the tests below `paths` (all by default); returns pytest's exit code, 5 for no tests.

    Installs system packages. Starts the engine and provides the base images, unless `quick` leaves
    out the tests that need them or `paths` hold none. `explore` runs only the tests that can try
    new examples. `durations` is the file that receives the measured seconds of each test file.
    """
    ensure_packages(PACKAGES, "the tests")
    environ = dict(os.environ)
    if explore:
        environ[PROFILE] = "explore"
    elif not quick and needs_engine(paths):
        ensure_engine()
        ensure_bases()
    argv = _argv(quick=quick, explore=explore, matching=matching)
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="amani-tests-") as folder:
        report = Path(folder) / "junit.xml"
        if durations is not None:
            argv.append(f"--junitxml={report}")
        status = subprocess.run([*argv, *paths], cwd=ROOT, env=environ).returncode
        if durations is not None and report.is_file():
            suite_order.record(report, durations)
    return status


def run_changed(
    paths: Sequence[str] = (),
    *,
    base: str = "",
    quick: bool = False,
    explore: bool = False,
    matching: str = "",
    durations: Path | None = None,
) -> int:
    """Run the tests that the changes since `base` can reach, of those below `paths`.

    Prints the selection. Returns pytest's exit code, and 0 if there is nothing to run: no test is
    selected, or none of them matches `quick`, `explore` and `matching`. Raises `UsageError` if
    `base` names no commit or git fails.
    """
    files, name = changed_tests.changed_files(ROOT, base)
    selection = changed_tests.select(files, changed_tests.read_sources(ROOT))
    print(f"{len(files)} changed files, compared with {name}")
    for line in selection.lines():
        print(f"  {line}")
    chosen = list(paths) if selection.unmapped else _below(selection.tests, paths)
    if not chosen and not selection.unmapped:
        print("no test to run")
        return 0
    if not selection.unmapped:
        print(f"{len(chosen)} test files to run")
    status = run_suite(chosen, quick=quick, explore=explore, matching=matching, durations=durations)
    return 0 if status == NO_TESTS and not selection.unmapped else status


def needs_engine(paths: Sequence[str]) -> bool:
    """Whether the tests below these paths may need an engine; so do all, without a path."""
    suites = {_relative(path).parts[1:2] for path in paths}
    return not suites or any(not suite or suite[0] in WITH_ENGINE for suite in suites)


def _argv(*, quick: bool, explore: bool, matching: str) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "-q", f"--numprocesses={workers()}", "--durations=12"]
    argv += DISTRIBUTION
    if explore:
        argv += ["-m", "explore"]
    elif quick:
        argv += ["-m", QUICK]
    if matching:
        argv += ["-k", matching]
    return argv


def _below(tests: Sequence[str], paths: Sequence[str]) -> list[str]:
    folders = [_relative(path) for path in paths]
    return [test for test in tests if not paths or any(map(Path(test).is_relative_to, folders))]


def _relative(path: str) -> Path:
    """The file or folder of a path, relative to the root; `tests` for one outside of it."""
    place = (ROOT / path.partition("::")[0]).resolve()
    return place.relative_to(ROOT) if place.is_relative_to(ROOT) else Path("tests")
