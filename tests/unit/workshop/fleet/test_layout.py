"""Names, addresses and roles of practice hosts, without an engine."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import UsageError
from workshop.fleet.layout import (
    FLEETS,
    MOST_HOSTS,
    NESTED,
    Layout,
    candidates,
    check_hosts,
    check_name,
    engine_settings,
)
from workshop.fleet.practice_environment import Roles

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
SUBNETS = st.integers(0, 255).map(lambda n: list(FLEETS.subnets(new_prefix=24))[n])


@given(NAMES, st.lists(SUBNETS, max_size=40))
def test_a_fleet_takes_no_subnet_that_is_taken(name: str, taken: list[IPv4Network]) -> None:
    found = list(candidates(name, taken))
    assert len(found) == 256 - len(set(taken))
    assert not set(found) & set(taken)
    assert all(subnet.subnet_of(FLEETS) for subnet in found)


def test_a_fleet_avoids_a_network_that_spans_several_subnets() -> None:
    wide = IPv4Network("198.18.0.0/17")
    assert not any(subnet.overlaps(wide) for subnet in candidates("fleet", [wide]))
    assert list(candidates("fleet", [IPv4Network("198.18.0.0/15")])) == []


def test_a_name_always_prefers_the_same_subnet() -> None:
    assert next(candidates("fleet", [])) == next(candidates("fleet", []))
    assert next(candidates("fleet", [])) != next(candidates("rehearsal", []))


@given(SUBNETS)
def test_every_container_has_its_own_address(subnet: IPv4Network) -> None:
    layout = Layout("fleet", subnet)
    hosts = [layout.host(number) for number in range(1, MOST_HOSTS + 1)]
    services = [layout.registry_address, layout.database, layout.database_host]
    members = [layout.gateway, *services, *hosts]
    assert len(set(members)) == len(members)
    assert set(members) <= set(subnet.hosts())


@given(SUBNETS)
def test_the_registry_has_a_loopback_name_that_no_other_fleet_has(subnet: IPv4Network) -> None:
    address, _, port = Layout("fleet", subnet).registry.partition(":")
    assert IPv4Address(address).is_loopback and port == "5000"
    assert address.split(".")[1:] == str(subnet[2]).split(".")[1:]


def test_networks_inside_hosts_overlap_with_nothing() -> None:
    found = []
    for number in range(1, MOST_HOSTS + 1):
        settings = engine_settings(number)
        found.append(ip_network(str(settings["bip"]), strict=False))
        found += [ip_network(pool["base"]) for pool in settings["default-address-pools"]]
    ordered = sorted(found, key=lambda network: int(network.network_address))
    assert not any(a.overlaps(b) for a, b in zip(ordered, ordered[1:], strict=False))
    assert all(network.subnet_of(NESTED) for network in found)
    assert not NESTED.overlaps(FLEETS)


@pytest.mark.parametrize("name", ["", "Fleet", "1st", "a b", "../x", "a" * 32, "fleet\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name of a fleet"):
        check_name(name)


@pytest.mark.parametrize("hosts", [-1, 0, MOST_HOSTS + 1])
def test_an_impossible_number_of_hosts_is_refused(hosts: int) -> None:
    with pytest.raises(UsageError, match="1 to 200 hosts"):
        check_hosts(hosts)


@pytest.mark.parametrize(
    ("hosts", "web", "workers", "roles"),
    [
        (1, None, None, [["web", "worker"]]),
        (3, None, None, [["web"], ["web"], ["web", "worker"]]),
        (3, [1, 2], None, [["web"], ["web"], ["worker"]]),
        (3, [1], [3], [["web"], [], ["worker"]]),
        (2, [1, 2], None, [["web"], ["web", "worker"]]),
        (2, None, [1], [["web", "worker"], ["web"]]),
    ],
)
def test_roles_of_hosts_follow_from_the_options(
    hosts: int, web: list[int] | None, workers: list[int] | None, roles: list[list[str]]
) -> None:
    chosen = Roles.choose(hosts, web, workers)
    assert [chosen.of(number) for number in range(1, hosts + 1)] == roles


def test_a_role_for_a_missing_host_is_refused() -> None:
    with pytest.raises(UsageError, match="web: there is no host 4 in a fleet of 3"):
        Roles.choose(3, [1, 4], None)
