"""Makes a release's own tests use a database that is there: loaded into their pytest by
`own_tests.py`, under a name of its own, and with nothing of this checkout around it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FIXTURE = "migrated_template"
"""Names the database that tests on PostgreSQL are given copies of."""
_RESULT = Path(os.environ["COMPAT_RESULT"])
_passed: list[str] = []
_failed: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> object | None:
    """Give the database, and note that a test asked for it."""
    if fixturedef.argname != FIXTURE:
        return None
    template = os.environ["COMPAT_TEMPLATE"]
    fixturedef.cached_result = (template, fixturedef.cache_key(request), None)
    _RESULT.with_suffix(".used").touch()
    return template


def pytest_runtest_logreport(report: Any) -> None:
    """Keep how each test ended."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = str(crash.message if crash else report.longrepr).strip()
        _failed[report.nodeid] = said.partition("\n")[0]
    elif report.when == "call" and report.passed:
        _passed.append(report.nodeid)


def pytest_sessionfinish(session: Any) -> None:
    """Write it down, once."""
    if not hasattr(session.config, "workerinput"):
        _RESULT.write_text(json.dumps({"passed": _passed, "failed": _failed}))
