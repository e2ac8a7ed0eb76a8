"""Drift and rollback targets, from the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.operations.rollback import find_rollback_targets
from deploy.operations.status import find_drift
from deploy.planning.blue_green import BlueGreen
from tests.support.planned_world import World, bare, environment, release, with_server

V1, V2 = release(1), release(2)

plan = BlueGreen().plan


@pytest.fixture
def world(tmp_path):
    made = World(environment(tmp_path), bare(environment(tmp_path)))
    for wanted in (V1, V2):
        made.run(BlueGreen().plan(made.environment, wanted, made.facts), wanted)
    return made


def change(world, host):
    """Return the facts with one host replaced."""
    return replace(world.facts, hosts={**world.facts.hosts, host.name: host})


def test_deployed_environment_has_no_drift(world):
    assert list(find_drift(world.facts)) == []


def test_each_difference_names_its_host(world):
    host = world.facts.hosts["one"]
    green = host.container("web", "green")
    others = tuple(c for c in host.containers if c is not green)
    cases = {
        "the proxy does not run": replace(host, proxy=replace(host.proxy, running=False)),
        "maintenance is on": replace(host, proxy=replace(host.proxy, maintenance=True)),
        "both slots": with_server(host, "blue", state="ready"),
        "start with the other slot": replace(
            host, proxy=replace(host.proxy, recorded_weights={"blue": 100})
        ),
        "its container does not run": replace(
            host, containers=(*others, replace(green, state="exited"))
        ),
        "green is live, but down for the proxy (L4CON)": with_server(
            host, "green", up=False, check="L4CON"
        ),
        "the journal has 1.2.0": replace(
            host, containers=(*others, replace(green, digest="sha256:other", version="9.9.9"))
        ),
        "blue is the standby (1.1.0), but down for the proxy (L4CON)": with_server(
            host, "blue", up=False, check="L4CON"
        ),
        "blue runs 9.9.9, which was never live": replace(
            host,
            containers=tuple(
                replace(c, digest="sha256:other", version="9.9.9") if c.slot == "blue" else c
                for c in host.containers
            ),
        ),
    }
    for text, changed in cases.items():
        found = list(find_drift(change(world, changed)))
        assert any(line.startswith("one: ") and text in line for line in found), (text, found)


def test_a_missing_worker_and_a_one_off_container_that_remains_are_drift(world):
    host = world.facts.hosts["three"]
    left = replace(host.containers[0], role="one-off", name="amani-planned-migrate-x", slot=None)
    kept = tuple(c for c in host.containers if c.role != "worker")
    found = list(find_drift(change(world, replace(host, containers=(*kept, left)))))
    assert "three: no worker runs" in found
    assert "three: the one-off container amani-planned-migrate-x was not removed" in found


def test_rollback_targets_have_the_fastest_source_and_mark_the_live_release(world):
    found = find_rollback_targets(world.facts)
    assert [(t.record.version, t.live, t.source) for t in found] == [
        ("1.2.0", True, "container"),
        ("1.1.0", False, "container"),
    ]
    bare_hosts = {
        name: replace(host, containers=(), images=host.images[1:])
        for name, host in world.facts.hosts.items()
    }
    found = find_rollback_targets(replace(world.facts, hosts=bare_hosts))
    assert found[1].source == "registry"
