"""The test suite on this machine: what it needs is brought in first, then pytest has the word."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence

from deploy.images.bases import ensure_bases
from deploy.machine.checkout import ROOT
from deploy.machine.engine import ensure_engine
from deploy.machine.packages import ensure_packages

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
PROFILE = "HYPOTHESIS_PROFILE"
"""Names what Hypothesis tries: the same each time (`steady`), or what is new (`explore`)."""


def workers() -> int:
    """How many tests at once: half as many again as processors, since many wait for others."""
    return math.ceil(1.5 * len(os.sched_getaffinity(0)))


def run_suite(
    paths: Sequence[str] = (), *, quick: bool = False, explore: bool = False, matching: str = ""
) -> int:
    """Run the tests below `paths` (all by default); returns pytest's exit code, 5 for no tests.

    Installs system packages, brings up the engine and provides the base images, unless `quick`
    leaves out the tests that need them. `explore` runs those only that can try what is new.
    """
    ensure_packages(PACKAGES, "the tests")
    # A file's tests stay together, so its fixtures are made once, and files begin in the order
    # that `tests/conftest.py` gives them.
    argv = [sys.executable, "-m", "pytest", "-q", f"--numprocesses={workers()}", "--durations=12"]
    argv += ["--dist=loadfile", "--no-loadscope-reorder"]
    environ = dict(os.environ)
    if explore:
        argv += ["-m", "explore"]
        environ[PROFILE] = "explore"
    elif quick:
        argv += ["-m", QUICK]
    else:
        ensure_engine()
        ensure_bases()
    if matching:
        argv += ["-k", matching]
    sys.stdout.flush()
    return subprocess.run([*argv, *paths], cwd=ROOT, env=environ).returncode
