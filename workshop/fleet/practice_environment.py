"""The environment of a fleet: the file for `invoke deploy --env=NAME`, its secrets, and files for
logins with OpenSSH."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.secrets.sources import quote_value
from workshop.fleet.credentials import FleetCredentials
from workshop.fleet.layout import Layout, check_numbers
from workshop.fleet.members import DATABASE_USER
from workshop.fleet.practice_host import PracticeHost

PROXY_IMAGE = "haproxy:3.0-trixie"
CONTAINERS = "172.29.40.0/24"
"""The environment's own network on each host."""


@dataclass(frozen=True)
class Roles:
    """The numbers of the web hosts and of the worker hosts."""

    web: tuple[int, ...]
    workers: tuple[int, ...]

    @classmethod
    def choose(cls, hosts: int, web: Sequence[int] | None, workers: Sequence[int] | None) -> Roles:
        """The given roles; by default all hosts are web hosts, and the last is also a worker.

        With `web` alone, the other hosts are workers. Raises `UsageError` for a host that does not
        exist.
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
        """The roles of one host; a host without a role is not in the environment."""
        return ["web"] * (number in self.web) + ["worker"] * (number in self.workers)


def document(
    layout: Layout,
    hosts: Sequence[PracticeHost],
    roles: Roles,
    database: PracticeHost | None = None,
) -> dict[str, Any]:
    """The content of the environment file. A `database` host gets point-in-time recovery, with its
    repository on the last of the other hosts."""
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
    """The values of the environment's secrets by name."""
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
    """The environment file as YAML with a header."""
    import yaml

    head = f"# Written by `invoke fleet.up --name={layout.name}`, which overwrites it.\n"
    return head + yaml.safe_dump(dict(content), sort_keys=False)


def render_secrets(values: Mapping[str, str]) -> str:
    """The file of secrets, one `NAME=value` per line."""
    return "".join(f"{name}={quote_value(value)}\n" for name, value in values.items())


def known_hosts(hosts: Sequence[PracticeHost]) -> str:
    """The hosts' pinned keys in OpenSSH's format."""
    return "".join(f"{host.address} {host.host_key}\n" for host in hosts)


def ssh_config(hosts: Sequence[PracticeHost], known: str) -> str:
    """A configuration for manual logins: `ssh -F .amani/fleet/ssh_config host1`."""
    return "".join(
        f"Host {host.name}\n  HostName {host.address}\n  User {host.user}\n"
        f'  IdentityFile "{host.identity_file}"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{known}"\n  StrictHostKeyChecking yes\n'
        for host in hosts
    )
