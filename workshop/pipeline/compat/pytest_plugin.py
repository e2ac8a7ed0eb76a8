"""A pytest plugin that makes a release's own tests use a given database.

`own_tests.py` copies it under another name into the release's pytest run, so it imports nothing of
this checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FIXTURE = "migrated_template"
"""The fixture with the name of the database that tests on PostgreSQL copy."""
_RESULT = Path(os.environ["COMPAT_RESULT"])
_passed: list[str] = []
_failed: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> object | None:
    """Replace the fixture's value, and record that a test used it."""
    if fixturedef.argname != FIXTURE:
        return None
    template = os.environ["COMPAT_TEMPLATE"]
    fixturedef.cached_result = (template, fixturedef.cache_key(request), None)
    _RESULT.with_suffix(".used").touch()
    return template


def pytest_runtest_logreport(report: Any) -> None:
    """Record each passed test and the reason of each failed one."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = str(crash.message if crash else report.longrepr).strip()
        _failed[report.nodeid] = said.partition("\n")[0]
    elif report.when == "call" and report.passed:
        _passed.append(report.nodeid)


def pytest_sessionfinish(session: Any) -> None:
    """Write the results to `COMPAT_RESULT`, in the main process only."""
    if not hasattr(session.config, "workerinput"):
        _RESULT.write_text(json.dumps({"passed": _passed, "failed": _failed}))
