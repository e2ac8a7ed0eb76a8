"""The order of the suite: what shares this machine's engine runs last and one test at a time."""

from __future__ import annotations

import pytest

SHARED = ("engine", "fleet")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of the engine and the fleet after all others and into one group for xdist."""
    shared = [any(item.get_closest_marker(name) for name in SHARED) for item in items]
    for item, is_shared in zip(items, shared, strict=True):
        if is_shared:
            item.add_marker(pytest.mark.xdist_group("engine"))
    order = sorted(range(len(items)), key=shared.__getitem__)
    items[:] = [items[position] for position in order]
