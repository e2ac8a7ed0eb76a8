"""The order of the suite: what takes longest begins first, so that no worker ends long after."""

from __future__ import annotations

import pytest

SLOW = ("fleet", "engine")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests on practice hosts first, then those of this machine's engine, then all others."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in SLOW])
