"""Fixtures for practice hosts: one fleet for each checkout and worker, removed at the end.

`AMANI_KEEP_FLEET=1` keeps it for the next run, which then starts at once.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest

from deploy.machine.checkout import ROOT
from tests.support.revisions import ADD, DROP, checkout, head
from workshop.fleet.fleet import Fleet
from workshop.fleet.practice_host import PracticeHost

from .operator import Operator
from .trial import Trial

HOSTS = 3
HELD = (
    "import os, sys, time\n"
    "    while sys.argv[1] == 'db' and os.path.exists('/data/hold'):\n"
    "        time.sleep(0.05)"
)
"""Delays the migration, but not the count of the rows that it would delete."""
HERE = Path(__file__).parent
Login = Callable[..., paramiko.SSHClient]


@pytest.hookimpl(tryfirst=True)  # before the root's hook, which sorts the tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder. The time limit allows the first one to build images."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.fleet)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


def fleet_name(prefix: str = "tests") -> str:
    """The name of a fleet, unique for this checkout and this worker."""
    place = f"{ROOT} {os.environ.get('PYTEST_XDIST_WORKER', '')}"
    return f"{prefix}-{zlib.crc32(place.encode()):08x}"


@pytest.fixture(scope="session")
def standing_fleet() -> Iterator[Fleet]:
    """The session's fleet, in the state that the last test left; tests use `fleet`."""
    with Fleet(fleet_name()) as fleet:
        fleet.up(HOSTS)
        yield fleet
        if not os.environ.get("AMANI_KEEP_FLEET"):
            fleet.down()


@pytest.fixture
def fleet(standing_fleet: Fleet) -> Fleet:
    """A fleet whose three hosts all answer; containers of earlier tests may still run on them."""
    standing_fleet.up(HOSTS)
    return standing_fleet


@pytest.fixture
def bare_fleet(fleet: Fleet) -> Fleet:
    """A fleet of three hosts with nothing but images, and an empty database."""
    fleet.reset()
    return fleet


@pytest.fixture
def login(fleet: Fleet) -> Iterator[Login]:
    """Logs in to a host with the fleet's key; only the pinned host key is accepted."""
    with ExitStack() as stack:

        def log_in(host: PracticeHost, user: str = "deploy") -> paramiko.SSHClient:
            client = stack.enter_context(paramiko.SSHClient())
            client.load_host_keys(str(fleet.known_hosts))
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            client.connect(
                host.address,
                username=user,
                key_filename=str(host.identity_file),
                look_for_keys=False,
                allow_agent=False,
                timeout=10,
            )
            return client

        yield log_in


@pytest.fixture(scope="module")
def releases(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The service as 1.0.0 and 2.0.0 in the fleet's registry; excludes `trial_releases`."""
    Operator(standing_fleet, tmp_path_factory.mktemp("releases")).publish("1.0.0", "2.0.0")


@pytest.fixture
def operator(bare_fleet: Fleet, releases: None, tmp_path: Path) -> Operator:
    """An operator of the bare fleet; the releases 1.0.0 and 2.0.0 are in its registry."""
    return Operator(bare_fleet, tmp_path)


@pytest.fixture(scope="module")
def trial_releases(
    standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The trial service, which boots at once, as 1.0.0 and 2.0.0 in the fleet's registry.

    Has the same tags as `releases`: a module uses either of the two.
    """
    trial = Trial(standing_fleet, tmp_path_factory.mktemp("trial"))
    for version in ("1.0.0", "2.0.0"):
        trial.publish(version)
    yield
    trial.close()


@pytest.fixture(scope="session")
def changing_releases(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The releases 3.0.0, which adds a column, and 4.0.0, which drops it, in the fleet's registry.

    The downgrade of 4.0.0 waits as long as the file /data/hold exists.
    """
    folder = tmp_path_factory.mktemp("changing")
    made = Operator(standing_fleet, folder)
    add = ("a001", head(), "expand", ADD, DROP)
    drop = ("a002", "a001", "contract", DROP, f"{HELD}\n    {ADD}")
    made.publish("3.0.0", source=checkout(folder / "adds", add))
    made.publish("4.0.0", source=checkout(folder / "drops", add, drop))


@pytest.fixture
def two_hosts(standing_fleet: Fleet, trial_releases: None, tmp_path: Path) -> Iterator[Operator]:
    """An operator of two bare web hosts, the second also a worker host, and of the trial service.

    The hosts are repaired at the end.
    """
    standing_fleet.up(HOSTS, web=[1, 2], workers=[2])
    standing_fleet.reset()
    made = Operator(standing_fleet, tmp_path)
    made.change(timeouts={"drain": "10s", "connect": "5s"})
    yield made
    for host in standing_fleet.hosts:
        host.heal()
