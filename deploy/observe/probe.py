"""HTTP requests to a host through the public route."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.environment.model import Environment


@dataclass(frozen=True)
class Answer:
    """An HTTP response, or with status 0 the `error` of a request without one.

    The names of headers are in lower case; `seconds` is the whole time including the connection.
    With TLS, `protocol` is its version and `expires` the end of the certificate in seconds since
    the epoch.
    """

    status: int
    body: bytes = b""
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    protocol: str = ""
    expires: float | None = None

    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def at(self, pointer: str) -> Any:
        """The value at a JSON pointer (RFC 6901) in the body; None if there is none."""
        document = self.json()
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(document, list) and key.isdigit() and int(key) < len(document):
                document = document[int(key)]
            elif isinstance(document, dict):
                document = document.get(key)
            else:
                return None
        return document


class _PinnedConnection(http.client.HTTPConnection):
    """Connects to a given address under the public name, without a DNS query."""

    def __init__(self, name: str, address: str, port: int, tls: bool, timeout: float) -> None:
        super().__init__(name, port, timeout=timeout)
        self._address = address
        self._tls = tls

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
        else:
            self.sock = plain


@dataclass(frozen=True)
class Route:
    """A route to the service: the `address` to connect to, and the `name` of TLS and Host."""

    address: str
    port: int
    name: str
    tls: bool = False

    def get(self, path: str, *, timeout: float = 5.0) -> Answer:
        """GET `path`. Never raises; `timeout` in seconds."""
        return self.send("GET", path, timeout=timeout)

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        """Send one request on its own connection. Never raises; `timeout` in seconds."""
        begun = time.monotonic()
        connection = _PinnedConnection(self.name, self.address, self.port, self.tls, timeout)
        try:
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            protocol, expires = _tls(connection.sock)
            response = connection.getresponse()
            return Answer(
                response.status,
                response.read(1 << 20),
                headers={name.lower(): value for name, value in response.getheaders()},
                seconds=time.monotonic() - begun,
                protocol=protocol,
                expires=expires,
            )
        except (OSError, http.client.HTTPException) as error:
            seconds = time.monotonic() - begun
            return Answer(0, error=f"{type(error).__name__}: {error}", seconds=seconds)
        finally:
            connection.close()


def _tls(connected: socket.socket | None) -> tuple[str, float | None]:
    if not isinstance(connected, ssl.SSLSocket):
        return "", None
    certificate = connected.getpeercert() or {}
    return connected.version() or "", ssl.cert_time_to_seconds(str(certificate["notAfter"]))


def make_route(environment: Environment, host: str) -> Route:
    """The public route to an environment's service through one of its hosts."""
    config = next(found for found in environment.hosts if found.name == host)
    proxy = environment.proxy
    address = config.address
    if environment.smoke.resolve == "dns":
        address = environment.domain
    elif config.connection == "local" and proxy.bind != "0.0.0.0":  # nosec B104
        address = proxy.bind
    port = proxy.https_port or proxy.http_port
    return Route(address, port, environment.domain, tls=proxy.https_port is not None)


def ask(environment: Environment, host: str, path: str, *, timeout: float) -> Answer:
    """GET a path from one host through the public route; `timeout` in seconds."""
    return make_route(environment, host).get(path, timeout=timeout)
