"""What the proxy of a host is made from, and the places that follow from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deploy.state import containers
from deploy.state.facts import Slot

if TYPE_CHECKING:
    from deploy.environment.model import Environment

BACKEND = "app"
CONFIGURATION = "haproxy.cfg"
MAINTENANCE = "maintenance.acl"

FOLDER = "/etc/amani"
"""Where the container sees `ProxySettings.folder`, read-only."""

CERTIFICATES = "/etc/amani-certificates"
"""Where it sees the folder that holds the certificate, so that a renewed file is seen too."""

_PROXY = 10
_SLOTS: Mapping[Slot, int] = {"blue": 11, "green": 12}


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `client` and `server` bound the silence within a request, not its whole time;
    `http_request` bounds the arrival of a request's head, `http_keep_alive` the wait for the
    next one, `queue` the wait for a slot."""

    connect: float = 2.0
    client: float = 30.0
    server: float = 60.0
    queue: float = 10.0
    http_request: float = 10.0
    http_keep_alive: float = 30.0


@dataclass(frozen=True)
class Health:
    """How the proxy asks a slot whether it is ready: 200 means yes. Seconds.

    `interval` is that of a slot in service; one that is booting is asked every `RETRY` seconds.
    """

    path: str = "/api/v1/readiness"
    port: int = 8000
    interval: float = 1.0
    timeout: float = 2.0
    host: str = "localhost"
    """The Host header of the check: services that trust named hosts only must trust it."""


@dataclass(frozen=True)
class ProxySettings:
    """The proxy of one environment on one host.

    `name` and `network` are the engine's names, `subnet` is the network's (CIDR, a /28 or wider),
    `directory` the environment's folder on the host, `certificate` a file there: a PEM of the
    chain and its key. Where there is one, `https_port` serves and `http_port` only redirects. Both
    are published on the host's address `bind`.
    `public` are the path prefixes that outsiders may reach; all else does not exist for them.
    """

    name: str
    directory: str
    network: str
    subnet: str
    image: str = "haproxy:3.0-trixie"
    http_port: int = 80
    https_port: int | None = None
    certificate: str | None = None
    bind: str = "0.0.0.0"  # nosec B104 - a public proxy listens on every interface
    public: tuple[str, ...] = ("/api/",)
    health: Health = Health()
    timeouts: Timeouts = Timeouts()
    max_connections: int = 4096
    stop_timeout: int = 30
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder on the host that holds the configuration."""
        return str(PurePosixPath(self.directory) / "proxy")

    @property
    def tls(self) -> bool:
        """Whether the public route is HTTPS."""
        return self.https_port is not None and self.certificate is not None

    @property
    def proxy_address(self) -> str:
        """The proxy's fixed address on the network."""
        return _address(self.subnet, _PROXY)

    def slot_address(self, slot: Slot) -> str:
        """The fixed address of a slot: no name is looked up while the proxy runs."""
        return _address(self.subnet, _SLOTS[slot])

    def path(self, name: str) -> str:
        """A file of the proxy's folder on the host."""
        return str(PurePosixPath(self.folder) / name)


def container_name(environment: Environment) -> str:
    """The name of the environment's proxy container on each host."""
    return f"amani-{environment.name}-proxy"


def settings_of(environment: Environment) -> ProxySettings:
    """The proxy's settings as the environment's file states them."""
    proxy, health = environment.proxy, environment.health
    return ProxySettings(
        name=container_name(environment),
        directory=environment.folder,
        network=containers.network_name(environment),
        subnet=environment.network.subnet,
        image=proxy.image,
        http_port=proxy.http_port,
        https_port=proxy.https_port,
        certificate=proxy.certificate,
        bind=proxy.bind,
        health=Health(
            path=health.path,
            port=health.port,
            interval=health.interval,
            timeout=health.timeout,
            host=environment.domain,
        ),
        timeouts=Timeouts(**proxy.timeouts.model_dump()),
        max_connections=proxy.max_connections,
        stop_timeout=environment.timeouts.stop,
        labels={containers.ENVIRONMENT: environment.name},
    )


def _address(subnet: str, offset: int) -> str:
    return str(ipaddress.IPv4Network(subnet)[offset])
