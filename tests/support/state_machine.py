"""How the state machines over money are run: the same orders each time, or new ones to explore."""

from __future__ import annotations

import typing as t

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

EXPLORING = 100
"""How many times more is tried where the profile asks for what was never tried."""


def run_machine(make: t.Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Try so many orders of events, of so many steps at most; fails with the shortest wrong one."""
    times = 1 if settings().derandomize else EXPLORING
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=examples * times,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )
