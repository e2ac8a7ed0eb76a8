"""One HTTP question to a host, asked the way the public would ask it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.environment import Environment


@dataclass(frozen=True)
class Answer:
    """What came back. `status` 0 means that nothing did; `error` then says why."""

    status: int
    body: bytes = b""
    error: str = ""

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _PinnedConnection(http.client.HTTPConnection):
    """Speaks to a given address under the public name, as the public's resolver would have it."""

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


def get(
    address: str, port: int, path: str, *, name: str = "", tls: bool = False, timeout: float = 5.0
) -> Answer:
    """GET `path` from `address` under the host name `name`; never raises, `timeout` in seconds."""
    connection = _PinnedConnection(name or address, address, port, tls, timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.read(1 << 20))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def ask(environment: Environment, host: str, path: str, *, timeout: float) -> Answer:
    """GET a path of an environment's service from one of its hosts, through the public route."""
    config = next(found for found in environment.hosts if found.name == host)
    proxy = environment.proxy
    address = config.address
    if environment.smoke.resolve == "dns":
        address = environment.domain
    elif config.connection == "local" and proxy.bind != "0.0.0.0":  # nosec B104
        address = proxy.bind
    return get(
        address,
        proxy.https_port or proxy.http_port,
        path,
        name=environment.domain,
        tls=proxy.https_port is not None,
        timeout=timeout,
    )
