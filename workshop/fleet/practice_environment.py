"""A fleet as an environment: the file that `invoke deploy --env=NAME` reads, its secrets, and what
OpenSSH needs to log in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.secrets.sources import quoted
from workshop.fleet.credentials import FleetCredentials
from workshop.fleet.layout import Layout, check_numbers
from workshop.fleet.members import DATABASE_USER
from workshop.fleet.practice_host import PracticeHost

PROXY_IMAGE = "haproxy:3.0-trixie"
CONTAINERS = "172.29.40.0/24"
"""The environment's own network on each host."""


@dataclass(frozen=True)
class Roles:
    """Which hosts are web hosts and which are workers, by number."""

    web: tuple[int, ...]
    workers: tuple[int, ...]

    @classmethod
    def choose(cls, hosts: int, web: Sequence[int] | None, workers: Sequence[int] | None) -> Roles:
        """Roles as asked for; by default all hosts are web hosts and the last is a worker too.

        With `web` alone given the others are workers. Raises `UsageError` for a host that is not
        there.
        """
        every = range(1, hosts + 1)
        if workers is None:
            rest = [number for number in every if web is not None and number not in web]
            workers = rest if rest else [hosts]
        return cls(
            check_numbers("web", every if web is None else web, hosts),
            check_numbers("workers", workers, hosts),
        )

    def of(self, number: int) -> list[str]:
        """The roles of one host; a host without any is left out of the environment."""
        return ["web"] * (number in self.web) + ["worker"] * (number in self.workers)


def document(
    layout: Layout,
    hosts: Sequence[PracticeHost],
    roles: Roles,
    database: PracticeHost | None = None,
) -> dict[str, Any]:
    """The environment file's content. With a host of its own for the `database` that can be taken
    back to any moment; the last of the others keeps what that needs."""
    recovery = {"backups": {"pitr": _recovery(database, hosts[-1])}} if database else {}
    repository = f"{layout.registry}/amani-backend"
    limits = {"memory": "256MB", "cpus": 1.0, "pids": 128}
    return {
        "domain": f"{layout.name}.test",
        "hosts": [
            {
                "name": host.name,
                "address": host.address,
                "user": host.user,
                "identity_file": str(host.identity_file),
                "host_keys": [host.host_key],
                "roles": roles.of(number),
            }
            for number, host in enumerate(hosts, start=1)
            if roles.of(number)
        ],
        "image": {
            "repository": repository,
            "registries": [repository],
            "insecure": True,
            "tags": ["{sha}", "{version}"],
        },
        "roles": {
            "web": {"resources": limits},
            "worker": {"command": ["flask", "amani", "worker"], "resources": limits},
        },
        "network": {"subnet": CONTAINERS},
        "proxy": {"image": f"{layout.registry}/{PROXY_IMAGE}", "http_port": 80},
        "settings": {"ENVIRONMENT": "staging", "LOG_LEVEL": "info", "PROXY_HOPS": "1"},
        "secrets": ["DATABASE_URL", "SECRET_KEY"],
        **recovery,
    }


def _recovery(database: PracticeHost, keeper: PracticeHost) -> dict[str, Any]:
    return {
        "server": {
            "address": database.address,
            "user": database.user,
            "identity_file": str(database.identity_file),
            "host_keys": [database.host_key],
        },
        "repository": {
            "kind": "ssh",
            "address": keeper.address,
            "user": keeper.user,
            "host_keys": [keeper.host_key],
            "path": "/var/lib/amani/pgbackrest",
            "key": "REPOSITORY_KEY",
            "passphrase": "REPOSITORY_PASSPHRASE",  # nosec B105 - a name
        },
    }


def secrets(
    layout: Layout, credentials: FleetCredentials, *, own_database_host: bool = False
) -> dict[str, str]:
    """The values that the environment's secrets have."""
    login = f"{DATABASE_USER}:{credentials.database_password()}"
    address = layout.database_host if own_database_host else layout.database
    found = {
        "DATABASE_URL": f"postgresql://{login}@{address}:5432/{DATABASE_USER}",
        "SECRET_KEY": credentials.secret_key(),
    }
    if own_database_host:
        found["REPOSITORY_KEY"] = credentials.identity().private
        found["REPOSITORY_PASSPHRASE"] = credentials.repository_passphrase()
    return found


def render(content: Mapping[str, Any], layout: Layout) -> str:
    """The environment file."""
    import yaml

    head = f"# Made by `invoke fleet.up --name={layout.name}`, which overwrites it.\n"
    return head + yaml.safe_dump(dict(content), sort_keys=False)


def render_secrets(values: Mapping[str, str]) -> str:
    """The file of secrets, a `NAME=value` a line."""
    return "".join(f"{name}={quoted(value)}\n" for name, value in values.items())


def known_hosts(hosts: Sequence[PracticeHost]) -> str:
    """The hosts' pinned keys as OpenSSH reads them."""
    return "".join(f"{host.address} {host.host_key}\n" for host in hosts)


def ssh_config(hosts: Sequence[PracticeHost], known: str) -> str:
    """For people: `ssh -F .amani/fleet/ssh_config host1`."""
    return "".join(
        f"Host {host.name}\n  HostName {host.address}\n  User {host.user}\n"
        f'  IdentityFile "{host.identity_file}"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{known}"\n  StrictHostKeyChecking yes\n'
        for host in hosts
    )
