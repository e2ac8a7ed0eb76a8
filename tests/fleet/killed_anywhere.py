"""A deployer that is killed after any step leaves nothing that the next deploy does not mend, and
no request fails meanwhile."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.fleet.fleet import Fleet

from .operator import Operator, Said
from .traffic import traffic


@pytest.fixture
def two_hosts(bare_fleet: Fleet, tmp_path: Path) -> Operator:
    """Two web hosts of which the second is the worker too, with nothing on them."""
    bare_fleet.up(3, web=[1, 2], workers=[2])
    made = Operator(bare_fleet, tmp_path)
    made.publish("1.0.0", "2.0.0")
    rehearsal = {"ENVIRONMENT": "staging", "LOG_LEVEL": "info", "PRACTICE": "true"}
    made.change(timeouts={"drain": "10s"}, settings=rehearsal)
    return made


def kill(operator: Operator, version: str, reached: Callable[[Said], bool]) -> str:
    """Deploy, and kill the deployer at the event that `reached` picks; returns what it told of."""
    command = operator.start("deploy", f"--version={version}")
    found = command.until(reached)
    command.signal(signal.SIGKILL)
    outcome = command.end()
    assert found is not None, outcome.errors
    return f"{found['step']} on {found['host']}"


def finished(number: int) -> Callable[[Said], bool]:
    """Picks the end of a run's step `number`, counted from 1 in the order of their ends."""
    count = itertools.count(1)
    return lambda said: said["kind"] == "step-finished" and next(count) == number


def at(moment: str, step: str) -> Callable[[Said], bool]:
    """Picks the first start or end of a kind of step."""
    return lambda said: (said["kind"], said.get("step")) == (moment, step)


def test_an_upgrade_killed_after_any_step_is_completed_by_the_next(two_hosts: Operator) -> None:
    operator = two_hosts
    operator.deploy("1.0.0")
    operator.deploy("2.0.0")
    steps = len(list(operator.plan("1.0.0").steps()))
    versions = itertools.cycle(["1.0.0", "2.0.0"])
    addresses = {host.name: host.address for host in operator.environment.hosts}
    with traffic(addresses, operator.environment.domain) as clients:
        for number, version in zip(range(1, steps), versions, strict=False):
            killed = kill(operator, version, finished(number))
            operator.deploy(version)
            assert operator.unsettled(version) == [], f"after a kill at {number}: {killed}"
    assert clients.failures == {}, clients.requests
    assert min(clients.requests.values()) > 100


@pytest.mark.parametrize("moment", ["step-started", "step-finished"])
def test_a_first_deploy_killed_at_any_kind_of_step_is_completed_by_the_next(
    two_hosts: Operator, moment: str
) -> None:
    operator = two_hosts
    operator.deploy("1.0.0")
    for step in ("deliver-secrets", "proxy", "migrate", "boot", "shift", "verify-worker"):
        operator.fleet.reset()
        kill(operator, "1.0.0", at(moment, step))
        operator.deploy("1.0.0")
        assert operator.unsettled("1.0.0") == [], f"after a kill at {moment} of {step}"
