"""Strategies: the registry, the key that chooses one, and the work that another one takes."""

from __future__ import annotations

import pytest

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.execute.plan import Plan, make_stage
from deploy.planning.strategies import STRATEGIES, choose_strategy
from deploy.planning.strategy import DEFAULTS, Strategy
from deploy.steps.container import Boot, Verify
from deploy.steps.journal import RecordRun
from deploy.steps.proxy import EnsureProxy, Shift
from tests.support.planned_world import World, bare, environment, release


class InPlace:
    """A small strategy: the release boots in blue, or replaces the earlier one there.

    Its module, one line in the registry and its test are all that a strategy needs.
    """

    name = "in-place"

    def plan(self, environment, release, facts, *, kind="deploy", options=DEFAULTS):
        wanted = release.image.digest
        late = [
            host
            for host in facts.hosts.values()
            if not (host.live_slot and host.container("web", host.live_slot).digest == wanted)
        ]
        lanes = [
            [
                *([] if host.proxy.present else [EnsureProxy(host.name, None, fresh=True)]),
                Boot(host.name, "web", "blue"),
                Verify(host.name, "blue"),
                Shift(host.name, "blue", None),
                RecordRun(host.name),
            ]
            for host in late
        ]
        stages = tuple(made for made in [make_stage("swap", lanes)] if made)
        return Plan(kind, environment.name, str(release.version), wanted, stages)


@pytest.fixture
def env(tmp_path):
    return environment(tmp_path, {"one": "[web]", "two": "[web]"})


def with_strategy(env, name):
    """The environment loaded again, from a file that names a strategy."""
    env.source.write_text(env.source.read_text() + f"strategy: {name}\n")
    return load_environment(env.name, folder=env.source.parent)


def test_blue_green_is_the_default(env):
    assert choose_strategy(env).name == env.strategy == "blue-green"


def test_the_registry_knows_each_strategy_by_its_name():
    assert {name: each.name for name, each in STRATEGIES.items()} == {n: n for n in STRATEGIES}


def test_an_unknown_strategy_is_refused_with_its_place_and_the_known_ones(env):
    with pytest.raises(UsageError) as caught:
        choose_strategy(with_strategy(env, "blue-gren"))
    line = len(env.source.read_text().splitlines())
    assert f"planned.yml:{line}" in caught.value.message
    for part in ("strategy", "must be one of: blue-green", "found 'blue-gren'"):
        assert part in caught.value.message


def test_a_strategy_needs_its_module_one_line_and_its_test(env, monkeypatch):
    another: Strategy = InPlace()
    monkeypatch.setitem(STRATEGIES, another.name, another)
    env = with_strategy(env, "in-place")
    world = World(env, bare(env))
    for number in (1, 2):
        wanted = release(number)
        made = choose_strategy(env).plan(env, wanted, world.facts)
        assert {step.kind for step in made.steps()} >= {"boot", "verify", "shift", "record"}
        world.run(made, wanted)
        live = [host.container("web", host.live_slot) for host in world.facts.hosts.values()]
        assert {found.version for found in live} == {f"1.{number}.0"}
        assert choose_strategy(env).plan(env, wanted, world.facts).empty
