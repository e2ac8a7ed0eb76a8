"""Interrupted deploys, and two deploys at the same time."""

from __future__ import annotations

import signal

import pytest

from deploy.state import lock

from .operator import Operator, at, planned
from .traffic import traffic


@pytest.fixture
def live(two_hosts: Operator) -> Operator:
    """An operator of hosts that serve 1.0.0."""
    two_hosts.deploy("1.0.0")
    return two_hosts


# Not during the smoke test: it may pass before a loaded machine suspends the deployer.
INTERRUPTS = (
    (signal.SIGINT, "boot"),
    (signal.SIGINT, "verify"),
    (signal.SIGINT, "shift"),
    (signal.SIGTERM, "shift"),
    (signal.SIGINT, "verify-worker"),
)


def test_an_interrupt_reverts_every_applied_step(live: Operator) -> None:
    before = live.containers()
    with traffic(live.addresses(), live.environment.domain) as clients:
        for number, step in INTERRUPTS:
            command = live.start("deploy", "--version=2.0.0")
            command.suspend(at("step-started", step)).signal(number)
            outcome = command.resume()
            assert outcome.status == 5, (number, step, outcome.errors)
            assert "interrupted: every applied step was reverted" in outcome.errors
            assert "Traceback" not in outcome.errors
            assert live.containers() == before, (number, step)
            assert live.leftovers() == [], (number, step)
            facts, plan = live.observe("1.0.0")
            assert {made.kind for made in plan.steps()} <= {"prune"}, "the image may stay"
            assert facts.history[-1].outcome == "interrupted"
    assert clients.failures == {}, clients.requests


def test_an_interrupt_after_the_smoke_test_warns_and_completes_the_deploy(live: Operator) -> None:
    command = live.start("deploy", "--version=2.0.0")
    command.suspend(at("step-started", "retire")).signal(signal.SIGINT)
    outcome = command.resume()
    assert outcome.status == 0, outcome.errors
    assert any("interrupted too late" in event.get("text", "") for event in outcome.events)
    assert live.find_deviations("2.0.0") == []


def test_a_second_deploy_at_the_same_time_reports_the_holder_of_the_lock(
    live: Operator,
) -> None:
    first = live.start("deploy", "--version=2.0.0").suspend(planned)
    second = live.run("deploy", "--version=2.0.0")
    assert first.resume().status == 0
    assert second.status == 4, second.errors
    for part in (
        f"host1: locked by {lock.describe_operator()}",
        "(deploy 2.0.0) since 20",
        "last heartbeat",
    ):
        assert part in second.errors
    assert live.find_deviations("2.0.0") == []


def test_the_lock_of_a_killed_deployer_is_taken_over_at_once(live: Operator) -> None:
    live.kill("2.0.0", at("step-started", "boot"))
    outcome = live.deploy("2.0.0")
    warnings = [event["text"] for event in outcome.events if event["kind"] == "warning"]
    assert f"took over the stale lock of {lock.describe_operator()}" in warnings
    outcomes = [(record.version, record.outcome) for record in live.facts().history]
    assert outcomes == [("1.0.0", "succeeded"), ("2.0.0", "abandoned"), ("2.0.0", "succeeded")]
    assert live.find_deviations("2.0.0") == []


def test_a_suspended_deploy_whose_lock_was_taken_over_stops(
    live: Operator,
) -> None:
    sleeper = live.start("deploy", "--version=2.0.0").suspend(at("step-started", "boot"))
    place = lock.path(live.environment.folder)
    live.fleet.host(1).run(["touch", "-d", "1 hour ago", place])
    live.deploy("2.0.0")
    outcome = sleeper.resume()
    assert outcome.status == 4, outcome.errors
    assert "the lock of this run was taken over" in outcome.errors
    outcomes = [record.outcome for record in live.facts().history]
    assert outcomes == ["succeeded", "abandoned", "succeeded"]
    assert live.find_deviations("2.0.0") == []
