"""Hosts that fall silent in the middle of a deploy, and an engine that restarts.

The deployer is suspended at a chosen event while that happens, so each case is the same every time.
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
    """Befalls host number `host` when a step of its own starts or ends."""

    host: int
    befall: Callable[[PracticeHost], None]
    moment: str
    step: str
    mend: Callable[[PracticeHost], object] = PracticeHost.heal


def stop_engine(host: PracticeHost) -> None:
    """Its containers run on (`live-restore`)."""
    host.run(["sv", "-w", "30", "stop", "docker"])


# One that is cut off with the lock: test_killed_in_changes.py.
OUTAGES = {
    "paused while booting": Outage(2, PracticeHost.pause, "step-started", "boot"),
    "cut after its shift": Outage(2, PracticeHost.cut, "step-finished", "shift"),
    "out of power while verifying": Outage(2, PracticeHost.kill, "step-started", "verify"),
    "its engine stopped while booting": Outage(
        2, stop_engine, "step-finished", "boot", PracticeHost.restart_engine
    ),
}


@pytest.mark.parametrize("case", OUTAGES)
def test_a_host_that_falls_silent_takes_no_other_with_it(two_hosts: Operator, case: str) -> None:
    operator, outage = two_hosts, OUTAGES[case]
    operator.deploy("1.0.0")
    host = operator.fleet.host(outage.host)
    others = operator.addresses(host.name)
    with traffic(others, operator.environment.domain) as clients:
        command = operator.start("deploy", "--version=2.0.0")
        command.suspend(at(outage.moment, outage.step, host.name))
        outage.befall(host)
        outcome = command.resume()
        assert outcome.status == 7, outcome.errors
        assert f"{host.name}: " in outcome.errors and "Traceback" not in outcome.errors
        assert "the other hosts were reverted" in outcome.errors
        assert operator.versions(*others) == dict.fromkeys(others, "1.0.0")
        outage.mend(host)
        operator.deploy("2.0.0")
    assert operator.unsettled("2.0.0") == []
    assert clients.failures == {}, clients.requests


def test_an_engine_that_restarts_under_a_deploy_is_survived(two_hosts: Operator) -> None:
    """On its own host the engine itself refuses connections while it sets up its ports again."""
    operator = two_hosts
    operator.deploy("1.0.0")
    with traffic(operator.addresses("host2"), operator.environment.domain) as clients:
        command = operator.start("deploy", "--version=2.0.0")
        command.suspend(at("step-started", "verify", "host2"))
        operator.fleet.host(2).restart_engine()
        outcome = command.resume()
        assert outcome.status == 0, outcome.errors
    assert operator.unsettled("2.0.0") == []
    assert clients.failures == {}, clients.requests
