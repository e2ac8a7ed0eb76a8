"""A proxy with two slots on this machine's engine, all of it removed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import proxy
from deploy.hosts.local import LocalHost
from tests.support.proxy_stand import Stand, environment_of, free_port


@pytest.fixture
def bare_stand(tmp_path: Path) -> Iterator[Stand]:
    """A host on which no proxy was started yet."""
    made = Stand(LocalHost(), environment_of(tmp_path, free_port()))
    try:
        yield made
    finally:
        made.clear()
        made.host.close()


@pytest.fixture
def stand(bare_stand: Stand) -> Stand:
    """A host with a proxy and no slots."""
    proxy.ensure(bare_stand.host, bare_stand.environment, None)
    return bare_stand
