"""The proxy of each web host."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from deploy.environment.sections.values import (
    AbsolutePath,
    HttpPath,
    IpAddress,
    Port,
    Seconds,
    Section,
)


class ProxyTimeouts(Section):
    """The proxy's timeouts, for each phase of a request."""

    connect: Seconds = 2.0
    """For a connection to a slot."""
    client: Seconds = 30.0
    """For the next bytes from the client."""
    server: Seconds = 60.0
    """For the next bytes from the service."""
    queue: Seconds = 10.0
    """For a free connection to a slot."""
    http_request: Seconds = 10.0
    """For a complete request head."""
    http_keep_alive: Seconds = 30.0
    """For a client's next request on an open connection."""


class ProxyConfig(Section):
    """The proxy in front of the web containers of a host."""

    image: str = "haproxy:3.0-trixie"
    """The HAProxy image."""
    bind: IpAddress = "0.0.0.0"  # nosec B104
    """The host's address to listen on."""
    http_port: Port = 80
    """The port for HTTP. If `https_port` is set, it redirects to HTTPS."""
    https_port: Port | None = None
    """The port for HTTPS. Requires `certificate`."""
    certificate: AbsolutePath | None = None
    """Path on the host of a PEM file with the certificate chain and the private key."""
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    """The maximum number of open connections."""
    timeouts: ProxyTimeouts = ProxyTimeouts.model_construct()
    """The proxy's timeouts."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if (self.https_port is None) != (self.certificate is None):
            raise ValueError("`https_port` and `certificate` belong together: give both or none")
        if self.https_port == self.http_port:
            raise ValueError(f"`http_port` and `https_port` are both {self.http_port}")
        return self


class HealthConfig(Section):
    """The proxy's health check of a web container."""

    path: HttpPath = "/api/v1/readiness"
    """The path that answers 200 when the container is ready for traffic."""
    port: Port = 8000
    """The container's port."""
    interval: Seconds = 1.0
    """Time between two checks."""
    timeout: Seconds = 2.0
    """For one answer."""
