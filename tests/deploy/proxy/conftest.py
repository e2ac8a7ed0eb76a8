"""A proxy with two slots on this machine's engine, all of it removed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import proxy
from deploy.hosts.local import LocalHost
from tests.deploy.proxy.stand import Stand, environment_of, free_port


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(LocalHost(), environment_of(tmp_path, free_port()))
    try:
        proxy.ensure(made.host, made.environment, None)
        yield made
    finally:
        made.clear()
        made.host.close()
