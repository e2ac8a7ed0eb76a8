"""Drift: differences between the recorded state and the hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.operations.rollback import targets
from deploy.operations.status import drift
from deploy.planning.blue_green import plan
from tests.support.planned_world import World, bare, environment, release, with_server

V1, V2 = release(1), release(2)


@pytest.fixture
def world(tmp_path):
    made = World(environment(tmp_path), bare(environment(tmp_path)))
    for wanted in (V1, V2):
        made.run(plan(made.environment, wanted, made.facts), wanted)
    return made


def change(world, host):
    """The facts with one host changed."""
    return replace(world.facts, hosts={**world.facts.hosts, host.name: host})


def test_deployed_environment_has_no_drift(world):
    assert list(drift(world.facts)) == []


def test_each_difference_is_reported_with_its_host(world):
    host = world.facts.hosts["one"]
    green = host.container("web", "green")
    others = tuple(c for c in host.containers if c is not green)
    cases = {
        "the proxy does not run": replace(host, proxy=replace(host.proxy, running=False)),
        "maintenance is on": replace(host, proxy=replace(host.proxy, maintenance=True)),
        "both slots": with_server(host, "blue", state="ready"),
        "come back with the other slot": replace(host, proxy=replace(host.proxy, recorded="blue")),
        "its container does not run": replace(
            host, containers=(*others, replace(green, state="exited"))
        ),
        "the proxy finds green down (L4CON)": with_server(host, "green", up=False, check="L4CON"),
        "recorded is 1.2.0": replace(
            host, containers=(*others, replace(green, digest="sha256:other", version="9.9.9"))
        ),
        "blue stands by (1.1.0), but the proxy finds it down (L4CON)": with_server(
            host, "blue", up=False, check="L4CON"
        ),
        "blue runs (9.9.9) and never was live": replace(
            host,
            containers=tuple(
                replace(c, digest="sha256:other", version="9.9.9") if c.slot == "blue" else c
                for c in host.containers
            ),
        ),
    }
    for says, changed in cases.items():
        told = list(drift(change(world, changed)))
        assert any(line.startswith("one: ") and says in line for line in told), (says, told)


def test_missing_worker_and_left_over_container_are_reported(world):
    host = world.facts.hosts["three"]
    left = replace(host.containers[0], role="one-off", name="amani-planned-migrate-x", slot=None)
    kept = tuple(c for c in host.containers if c.role != "worker")
    told = list(drift(change(world, replace(host, containers=(*kept, left)))))
    assert "three: no worker runs" in told
    assert "three: amani-planned-migrate-x was left behind" in told


def test_rollback_targets_show_live_release_and_fastest_source(world):
    found = targets(world.facts)
    assert [(t.record.version, t.live, t.standing) for t in found] == [
        ("1.2.0", True, "container"),
        ("1.1.0", False, "container"),
    ]
    bare_hosts = {
        name: replace(host, containers=(), images=host.images[1:])
        for name, host in world.facts.hosts.items()
    }
    found = targets(replace(world.facts, hosts=bare_hosts))
    assert found[1].standing == "registry"
