"""The proxy's settings on a host, and its paths there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deploy.state import containers
from deploy.state.facts import SLOTS, Slot

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.environment.sections import HealthConfig, ProxyTimeouts

BACKEND = "app"
CONFIGURATION = "haproxy.cfg"
MAINTENANCE = "maintenance.acl"

FOLDER = "/etc/amani"
"""`ProxySettings.folder` inside the container, read-only."""

CERTIFICATES = "/etc/amani-certificates"
"""The certificate's folder inside the container. The folder is mounted and not the file, so that
the container sees a renewed certificate."""

PUBLIC = ("/api/",)
"""The path prefixes that the proxy serves; it answers 404 for all others."""


@dataclass(frozen=True)
class ProxySettings:
    """The proxy of one environment on one host. Only `read_settings` makes one: the defaults and
    the fixed addresses are those of the environment file.

    `name` and `network` are the engine's names, `subnet` is the network's (CIDR), `address` and
    `slot_addresses` are the fixed addresses in it, `directory` is the environment's folder on the
    host. `certificate` is a PEM file there that holds the chain and its key. With a certificate
    `https_port` serves and `http_port` redirects to it. Both are published on the host's address
    `bind`. `check_host` is the Host header of the health check.
    """

    name: str
    directory: str
    network: str
    subnet: str
    address: str
    slot_addresses: Mapping[Slot, str]
    image: str
    http_port: int
    https_port: int | None
    certificate: str | None
    bind: str
    health: HealthConfig
    check_host: str
    timeouts: ProxyTimeouts
    max_connections: int
    labels: Mapping[str, str]

    @property
    def folder(self) -> str:
        """The folder on the host that holds the configuration."""
        return str(PurePosixPath(self.directory) / "proxy")

    @property
    def tls(self) -> bool:
        """Whether the public route is HTTPS."""
        return self.https_port is not None and self.certificate is not None

    def path(self, name: str) -> str:
        """The path on the host of a file in the proxy's folder."""
        return str(PurePosixPath(self.folder) / name)


def container_name(environment: Environment) -> str:
    """The name of the environment's proxy container on each host."""
    return f"amani-{environment.name}-proxy"


def read_settings(environment: Environment) -> ProxySettings:
    """The proxy's settings from the environment file."""
    proxy = environment.proxy
    return ProxySettings(
        name=container_name(environment),
        directory=environment.folder,
        network=containers.network_name(environment),
        subnet=environment.network.subnet,
        address=environment.address_of("proxy"),
        slot_addresses={slot: environment.address_of(slot) for slot in SLOTS},
        image=proxy.image,
        http_port=proxy.http_port,
        https_port=proxy.https_port,
        certificate=proxy.certificate,
        bind=proxy.bind,
        health=environment.health,
        check_host=environment.domain,
        timeouts=proxy.timeouts,
        max_connections=proxy.max_connections,
        labels={containers.ENVIRONMENT: environment.name},
    )
