"""Commands and files on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from tests.support.contracts.host_commands import *  # noqa: F401,F403


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    with closing(LocalHost()) as host:
        yield host
