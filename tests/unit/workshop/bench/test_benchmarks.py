"""Figures of benchmarks, and a measured command that fails."""

from __future__ import annotations

import pytest

from deploy.errors import DeployError
from workshop.bench import deploys, practice_releases
from workshop.bench.practice_releases import CommandOutcome


def ran(seconds: float, *ends: tuple[str, float, float]) -> CommandOutcome:
    """A command that took `seconds`; each step has a kind, an end and a duration in seconds."""
    events = [
        {"kind": "step-finished", "step": step, "at": 100.0 + at, "data": {"seconds": took}}
        for step, at, took in ends
    ]
    return CommandOutcome(100.0, seconds, ({"kind": "plan", "at": 100.1}, *events))


def test_time_to_traffic_ends_with_the_shift_of_the_last_host():
    outcome = ran(9, ("boot", 2, 2), ("shift", 3, 1), ("shift", 5, 1), ("drain", 8, 3))
    assert outcome.to_traffic == pytest.approx(5)
    assert ran(9, ("boot", 2, 2)).to_traffic == 0


def test_figures_are_medians_and_ratios_are_those_of_each_round():
    series = deploys._Series()
    for whole, floor in ((6, 2), (4, 4), (9, 3)):
        deploy = ran(whole, ("boot", 1, 1), ("shift", 2, 1))
        series.rounds.append(deploys._Round(deploy, ran(whole / 2, ("shift", 1, 1)), floor, 1.5))
    found = series.figures()
    assert found["deploy"]["seconds"] == 6
    assert found["deploy"]["floor_seconds"] == 3
    assert found["deploy"]["ratio_to_floor"] == 3  # of 3, 1 and 3
    assert found["deploy"]["to_traffic_seconds"] == pytest.approx(2)
    assert found["deploy"]["all_seconds"] == [6, 4, 9]
    assert found["rollback"]["ratio_to_floor"] == 2
    assert set(found["deploy"]["steps"]) == {"boot", "shift"}


def test_a_failed_command_ends_the_benchmark_with_its_output():
    with pytest.raises(DeployError, match=r"ended with 2:\n(.|\n)*nowhere") as failed:
        practice_releases.deploy_version("nowhere", "1.0.0")
    assert "--version=1.0.0" in failed.value.message
