"""The problems that refuse a deploy before its first change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.errors import GateRefused, HostUnreachable
from deploy.planning import preflight
from deploy.state.facts import Facts, ProxyFacts
from tests.support.planned_world import bare, environment

ENOUGH = 100_000_000_000


@pytest.fixture
def env(tmp_path):
    return environment(tmp_path)


def facts(env, **changes) -> Facts:
    """Sound hosts, the first of which is changed."""
    found = bare(env)
    hosts = {name: replace(host, disk_free=ENOUGH) for name, host in found.hosts.items()}
    first = next(iter(hosts))
    hosts[first] = replace(hosts[first], **changes)
    return replace(found, hosts=hosts)


def check(env, found, platforms=("linux/amd64",), size=0):
    preflight.check(env, found, platforms, size)


def test_sound_hosts_pass(env):
    check(env, facts(env))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"disk_free": 1_000_000_000}, "one: disk nearly full: 1.0 GB free"),
        ({"clock_skew": -42.5}, "one: its clock differs by -42.5 s"),
        ({"architecture": "arm64"}, "one: wrong architecture: the host is arm64"),
        ({"busy_ports": frozenset({80})}, "one: port 80 is in use"),
        (
            {"database": "db:5432: refused"},
            "one: the database is unreachable from this host: db:5432",
        ),
    ],
)
def test_each_problem_is_refused_with_host_and_reason(env, changes, says):
    with pytest.raises(GateRefused) as caught:
        check(env, facts(env, **changes))
    assert says in caught.value.message
    assert caught.value.hint and caught.value.exit_code == 3


def test_the_port_of_our_own_proxy_is_no_problem(env):
    own = ProxyFacts(running=True, present=True)
    check(env, facts(env, busy_ports=frozenset({80}), proxy=own))


def test_an_image_that_is_not_there_yet_needs_its_own_room(env):
    found = facts(env, disk_free=env.disk_reserve + 10)
    check(env, found, size=10)
    with pytest.raises(GateRefused, match="disk nearly full"):
        check(env, found, size=11)


def test_all_problems_of_all_hosts_are_reported_at_once(env):
    found = facts(env, disk_free=0, clock_skew=99.0)
    found.unreachable["three"] = "three: no answer"
    with pytest.raises(HostUnreachable) as caught:
        check(env, found)
    assert all(part in caught.value.message for part in ("disk", "clock", "three: no answer"))
    assert "nothing was changed" in caught.value.message
