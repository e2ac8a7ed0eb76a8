"""Hosts that fail in the middle of a deploy, operators who change their mind, and two at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.fleet.fleet import Fleet
from deploy.fleet.host import PracticeHost

from .operator import Operator
from .test_killed_anywhere import at, kill
from .traffic import traffic

BOUNDED = 120.0
"""Seconds: silence is noticed within 20, the rest is for a busy machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environment")


@pytest.fixture
def live(fleet: Fleet, folder: Path) -> Iterator[Operator]:
    """Two web hosts of which the second is the worker too, on which 1.0.0 is live."""
    fleet.reset()
    fleet.up(3, web=[1, 2], workers=[2])
    made = Operator(fleet, folder)
    made.publish("1.0.0", "2.0.0")
    made.change(timeouts={"drain": "10s", "connect": "5s"})
    made.deploy("1.0.0")
    yield made
    for host in fleet.hosts:
        host.heal()


@pytest.mark.parametrize("befall", [PracticeHost.pause, PracticeHost.cut, PracticeHost.kill])
@pytest.mark.parametrize("step", ["boot", "drain"])
def test_a_host_lost_mid_deploy_ends_it_with_7_and_the_other_host_on_the_old_release(
    live: Operator, befall: Callable[[PracticeHost], None], step: str
) -> None:
    second = live.fleet.host(2)
    healthy = {"host1": live.fleet.host(1).address}
    with traffic(healthy, live.environment.domain) as clients:
        command = live.start("deploy", "--version=2.0.0")
        reached = at("step-started", step)
        assert command.until(lambda said: reached(said) and said["host"] == "host2")
        befall(second)
        began = time.monotonic()
        outcome = command.end()
        assert time.monotonic() - began < BOUNDED
        assert outcome.status == 7, outcome.errors
        assert "host2" in outcome.errors and "Traceback" not in outcome.errors
        assert live.versions()["host1"] == "1.0.0"
        second.heal()
        live.deploy("2.0.0")
    assert live.unsettled("2.0.0") == []
    assert clients.failures == {}, clients.requests


def test_an_engine_that_restarts_mid_deploy_is_survived(live: Operator) -> None:
    addresses = {host.name: host.address for host in live.environment.hosts}
    with traffic(addresses, live.environment.domain) as clients:
        command = live.start("deploy", "--version=2.0.0")
        assert command.until(
            lambda said: at("step-started", "verify")(said) and said["host"] == "host2"
        )
        live.fleet.host(2).restart_engine()
        outcome = command.end()
        assert outcome.status in (5, 7), outcome.errors
        assert live.versions()["host1"] == "1.0.0"
        live.deploy("2.0.0")
    assert live.unsettled("2.0.0") == []
    assert clients.failures == {}, clients.requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["verify", "drain", "verify-worker"])
def test_an_interrupt_takes_everything_back(
    live: Operator, number: signal.Signals, step: str
) -> None:
    before = live.containers()
    addresses = {host.name: host.address for host in live.environment.hosts}
    with traffic(addresses, live.environment.domain) as clients:
        command = live.start("deploy", "--version=2.0.0")
        assert command.until(at("step-started", step))
        command.signal(number)
        outcome = command.end()
    assert outcome.status == 5, outcome.errors
    assert "interrupted: everything applied was taken back" in outcome.errors
    assert live.containers() == before
    assert live.unsettled("1.0.0") == []
    assert clients.failures == {}, clients.requests


def test_an_interrupt_after_the_smoke_comes_too_late_and_says_so(live: Operator) -> None:
    command = live.start("deploy", "--version=2.0.0")
    assert command.until(at("step-started", "retire"))
    command.signal(signal.SIGINT)
    outcome = command.end()
    assert outcome.status == 0, outcome.errors
    assert any("interrupted too late" in said.get("text", "") for said in outcome.events)
    assert live.unsettled("2.0.0") == []


def test_of_two_deploys_at_once_one_wins_and_the_other_is_told_who_holds_the_lock(
    live: Operator,
) -> None:
    first = live.start("deploy", "--version=2.0.0")
    assert first.until(lambda said: said["kind"] == "plan")
    second = live.run("deploy", "--version=1.0.0")
    assert second.status == 4, second.errors
    assert "locked by" in second.errors and "(deploy 2.0.0) since 20" in second.errors
    assert first.end().status == 0
    assert live.unsettled("2.0.0") == []


def test_the_lock_of_a_killed_deployer_is_taken_over_at_once(live: Operator) -> None:
    kill(live, "2.0.0", at("step-started", "boot"))
    state = live.run("lock.status")
    assert state.status == 0
    outcome = live.deploy("2.0.0")
    texts = [said.get("text", "") for said in outcome.events]
    assert any("took over the lock of a dead run" in text for text in texts)
    assert live.unsettled("2.0.0") == []
