"""Run a release's own API tests on a given database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workshop.quality.suite_catalog import SERVER
from workshop.quality.suite_run import workers

PLACES = {"tests/api": ("tests/api",), "tests/service": ("--suite=api",)}
"""The folders with API tests, the newest layout first, and the arguments that select them."""
SECONDS = 600
_PLUGIN = "amani_compat_plugin"


@dataclass(frozen=True)
class OwnTestsResult:
    """The number of passed tests, the failed ones with reasons, or the `trouble` that stops all."""

    passed: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""


def run_tests(
    source: Path, server: str, template: str, only: Collection[str] = ()
) -> OwnTestsResult:
    """Run the API tests of the checkout in `source` that use PostgreSQL, or `only` some of them.

    Each gets a copy of the database `template` on the server with this URL. They run with the
    packages of this checkout, so a test may fail on the release's own schema, too.
    """
    chosen = next((PLACES[place] for place in PLACES if (source / place).is_dir()), None)
    if chosen is None:
        return OwnTestsResult(trouble=f"it has no {' and no '.join(PLACES)}")
    with tempfile.TemporaryDirectory(prefix="compat-tests-") as folder:
        shutil.copy(Path(__file__).with_name("pytest_plugin.py"), Path(folder) / f"{_PLUGIN}.py")
        result = Path(folder) / "result.json"
        environ = {name: text for name, text in os.environ.items() if name != "DATABASE_URL"}
        environ |= {
            "PYTHONPATH": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            "COMPAT_RESULT": str(result),
            "COMPAT_TEMPLATE": template,
            SERVER: server,
        }
        argv = [sys.executable, "-m", "pytest", "-q", *(only or chosen), "-m", "postgres"]
        argv += ["-p", _PLUGIN, f"--numprocesses={workers()}"]
        try:
            done = subprocess.run(
                argv,
                cwd=source,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return OwnTestsResult(trouble=f"they did not end within {SECONDS} s")
        return _read(result, done.returncode, done.stdout)


def _read(result: Path, status: int, said: str) -> OwnTestsResult:
    # 0: all passed; 1: some failed. Other codes are no result of the tests.
    if status not in (0, 1) or not result.is_file():
        tail = " | ".join(said.strip().splitlines()[-3:])
        return OwnTestsResult(trouble=f"pytest ended with code {status}: {tail}")
    if not result.with_suffix(".used").exists():
        return OwnTestsResult(trouble="they do not use the database that they are given")
    found = json.loads(result.read_text())
    return OwnTestsResult(len(found["passed"]), found["failed"])
