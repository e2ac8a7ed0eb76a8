"""The planner's simulated steps against the real classes: none is missing, and none is changed."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

from deploy import steps
from deploy.execute.plan import Step
from tests.support.planned_world import EFFECTS


def real_steps() -> set[type[Step]]:
    """Every class of steps in `deploy/steps`."""
    modules = [
        importlib.import_module(f"{steps.__name__}.{found.name}")
        for found in pkgutil.iter_modules(steps.__path__)
    ]
    return {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Step) and value is not Step
    }


STEPS = sorted(real_steps(), key=lambda step: step.kind)


def test_every_class_of_steps_is_simulated():
    assert set(EFFECTS) == real_steps()


def test_every_step_has_a_kind_of_its_own():
    kinds = [step.kind for step in STEPS]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
def test_a_step_is_a_frozen_value_that_describes_and_applies_itself(step):
    assert step.__dataclass_params__.frozen
    assert step.describe is not Step.describe and step.apply is not Step.apply
    names = [field.name for field in dataclasses.fields(step)]
    assert names[0] == "host" and "kind" not in names and "needs_smoke" not in names


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
def test_no_step_is_skipped_that_the_simulation_applies(step):
    """The simulation applies every planned step, so `done` must be the default, False."""
    assert step.done is Step.done


def test_a_smoke_test_follows_a_change_of_the_live_release_or_its_schema():
    kinds = {step.kind for step in STEPS if step.needs_smoke}
    assert kinds == {"boot", "shift", "migrate", "downgrade"}
