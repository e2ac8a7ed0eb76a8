"""Hosts that become unreachable during a deploy, and an engine that restarts.

The deployer is suspended at a chosen event meanwhile, so that each case is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from workshop.fleet.practice_host import PracticeHost

from .operator import Operator, at
from .traffic import traffic


@dataclass(frozen=True)
class Outage:
    """An outage of host number `host` when one of its steps starts or ends."""

    host: int
    cause: Callable[[PracticeHost], None]
    moment: str
    step: str
    repair: Callable[[PracticeHost], object] = PracticeHost.heal


def stop_engine(host: PracticeHost) -> None:
    """Stop the Docker Engine; its containers keep running (`live-restore`)."""
    host.run(["sv", "-w", "30", "stop", "docker"])


# test_killed_in_changes.py covers a host that is cut off while it holds the lock.
OUTAGES = {
    "paused while booting": Outage(2, PracticeHost.pause, "step-started", "boot"),
    "cut after its shift": Outage(2, PracticeHost.cut, "step-finished", "shift"),
    "out of power while verifying": Outage(2, PracticeHost.kill, "step-started", "verify"),
    "its engine stopped while booting": Outage(
        2, stop_engine, "step-finished", "boot", PracticeHost.restart_engine
    ),
}


@pytest.mark.parametrize("case", OUTAGES)
def test_a_host_that_becomes_unreachable_does_not_affect_the_others(
    two_hosts: Operator, case: str
) -> None:
    operator, outage = two_hosts, OUTAGES[case]
    operator.deploy("1.0.0")
    host = operator.fleet.host(outage.host)
    others = operator.addresses(host.name)
    with traffic(others, operator.environment.domain) as clients:
        command = operator.start("deploy", "--version=2.0.0")
        command.suspend(at(outage.moment, outage.step, host.name))
        outage.cause(host)
        outcome = command.resume()
        assert outcome.status == 7, outcome.errors
        assert f"{host.name}: " in outcome.errors and "Traceback" not in outcome.errors
        assert "the other hosts were reverted" in outcome.errors
        assert operator.versions(*others) == dict.fromkeys(others, "1.0.0")
        outage.repair(host)
        operator.deploy("2.0.0")
    assert operator.find_deviations("2.0.0") == []
    assert clients.failures == {}, clients.requests


def test_a_deploy_survives_a_restart_of_an_engine(two_hosts: Operator) -> None:
    """Traffic excludes that host: its engine refuses connections until its ports are set up."""
    operator = two_hosts
    operator.deploy("1.0.0")
    with traffic(operator.addresses("host2"), operator.environment.domain) as clients:
        command = operator.start("deploy", "--version=2.0.0")
        command.suspend(at("step-started", "verify", "host2"))
        operator.fleet.host(2).restart_engine()
        outcome = command.resume()
        assert outcome.status == 0, outcome.errors
    assert operator.find_deviations("2.0.0") == []
    assert clients.failures == {}, clients.requests
