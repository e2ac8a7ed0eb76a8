"""The names and addresses of a fleet. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from deploy.errors import UsageError

PREFIX = "amani"
LABEL = "amani.fleet"
FLEETS = IPv4Network("198.18.0.0/16")
"""Each fleet uses a /24 of it. 198.18.0.0/15 is reserved for tests of network devices (RFC 2544),
so no home, office or cloud network uses it."""
NESTED = IPv4Network("198.19.0.0/16")
"""The containers of each host use a /24 of it."""
MOST_HOSTS = 200
FIRST_HOST = 10
REGISTRY_PORT = 5000


@dataclass(frozen=True)
class Layout:
    """The names and addresses of one fleet."""

    name: str
    subnet: IPv4Network

    @property
    def network(self) -> str:
        """The name of the fleet's network."""
        return network_name(self.name)

    @property
    def gateway(self) -> IPv4Address:
        """This machine's address on the fleet's network."""
        return self.subnet[1]

    @property
    def registry(self) -> str:
        """The registry's `address:port`, the same on this machine and in each host.

        It is a loopback address, for which engines use plain HTTP without configuration.
        """
        return f"127.{str(self.registry_address).partition('.')[2]}:{REGISTRY_PORT}"

    @property
    def registry_address(self) -> IPv4Address:
        """The registry's address on the fleet's network."""
        return self.subnet[2]

    @property
    def database(self) -> IPv4Address:
        """The address of PostgreSQL in a container."""
        return self.subnet[3]

    @property
    def database_host(self) -> IPv4Address:
        """The address of the host of PostgreSQL, if it has one."""
        return self.subnet[4]

    def host(self, number: int) -> IPv4Address:
        """The address of host `number`, counted from 1."""
        return self.subnet[FIRST_HOST + number]

    def container(self, member: str) -> str:
        """The name of a member's container, and of its volume."""
        return f"{self.network}-{member}"


def network_name(fleet: str) -> str:
    """The name of a fleet's network."""
    return f"{PREFIX}-{fleet}"


def check_name(name: str) -> str:
    """Return a fleet's name. Raises `UsageError` if it is invalid."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise UsageError(
            f"{name!r} is not a valid name of a fleet",
            hint="Use at most 31 lower-case letters, digits and '-', and begin with a letter.",
        )
    return name


def check_hosts(hosts: int) -> int:
    """Return a number of hosts. Raises `UsageError` if a fleet cannot have it."""
    if not 1 <= hosts <= MOST_HOSTS:
        raise UsageError(f"a fleet has 1 to {MOST_HOSTS} hosts, not {hosts}")
    return hosts


def candidates(name: str, taken: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """The free subnets for a fleet, the one that its name hashes to first. Leaves out those that
    overlap with `taken`."""
    taken = list(taken)
    subnets = list(FLEETS.subnets(new_prefix=24))
    first = zlib.crc32(name.encode()) % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            yield subnet


def engine_settings(number: int) -> dict[str, object]:
    """The `daemon.json` of host `number`. Containers keep running during a restart of the engine,
    and their networks overlap with no other network of the fleet."""
    own = list(NESTED.subnets(new_prefix=24))[number]
    bridge, pool = own.subnets(new_prefix=25)
    return {
        "live-restore": True,
        "bip": f"{bridge[1]}/{bridge.prefixlen}",
        "default-address-pools": [{"base": str(pool), "size": 28}],
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }


def check_numbers(what: str, numbers: Iterable[int], hosts: int) -> tuple[int, ...]:
    """Return host numbers, sorted. Raises `UsageError` for one that the fleet does not have."""
    found = tuple(sorted(set(numbers)))
    if unknown := [number for number in found if not 1 <= number <= hosts]:
        raise UsageError(f"{what}: there is no host {unknown[0]} in a fleet of {hosts}")
    return found
