"""Runs state machines over money: with fixed examples, or with new ones to explore."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

EXPLORING = 100
"""Factor on the number of examples in the `explore` profile."""


def run_machine(make: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Run `examples` sequences of at most `steps` steps; a failure shows the shortest sequence."""
    times = 1 if settings().derandomize else EXPLORING
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=examples * times,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )
