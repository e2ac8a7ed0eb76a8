"""The order of the suite, slowest first, so that no worker ends long after; and its parts."""

from __future__ import annotations

import pytest

from deploy.pipeline.suites import SUITES, classify

SLOW = ("fleet", "engine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the parts that jobs run."""
    parser.addoption("--suite", choices=sorted(SUITES), help="only this part of the tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put tests on practice hosts first, then those of this machine's engine, then all others."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in SLOW])
    if suite := config.getoption("--suite"):
        chosen = [item for item in items if _suite(config, item) == suite]
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen


def _suite(config: pytest.Config, item: pytest.Item) -> str:
    markers = {mark.name for mark in item.iter_markers()}
    return classify(item.path.relative_to(config.rootpath).as_posix(), markers)
