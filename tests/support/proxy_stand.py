"""A proxy and small services in its slots, on the engine of this machine."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from deploy import proxy
from deploy.environment.model import Environment, load_environment
from deploy.hosts.engine import ContainerSpec
from deploy.hosts.local import LocalHost
from deploy.state import containers
from deploy.state.facts import SLOTS, Slot
from workshop.bench.load_generator import Profile

UPSTREAM = Path(__file__).with_name("upstream.py").read_text()


def environment_of(folder: Path, port: int, **changes: Any) -> Environment:
    name = f"px{secrets.token_hex(4)}"
    values: dict[str, Any] = {
        "name": name,
        "domain": "localhost",
        "directory": str(folder),
        "hosts": [{"name": "here", "connection": "local", "roles": ["web"]}],
        "network": {"subnet": f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/28"},
        "proxy": {"bind": "127.0.0.1", "http_port": port},
        **changes,
    }
    (folder / f"{name}.yml").write_text(json.dumps(values))
    return load_environment(name, folder=folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not within {seconds} s"
        sleep(0.02)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def slot(self) -> str:
        return self.body.decode().splitlines()[0].removeprefix("slot: ")


@dataclass
class Stand:
    """One host, its proxy, and upstreams in its slots."""

    host: LocalHost
    environment: Environment

    @property
    def port(self) -> int:
        return self.environment.proxy.http_port

    @property
    def engine(self) -> Any:
        return self.host.engine

    @property
    def proxy(self) -> str:
        return proxy.container_name(self.environment)

    @property
    def profile(self) -> Profile:
        return Profile("127.0.0.1", self.port, rate=300, slow=2, timeout=10)

    def boot_name(self, slot: Slot) -> str:
        """The name of the upstream in a slot."""
        return containers.slot_name(self.environment, "web", slot)

    def boot(self, slot: Slot) -> str:
        """Start an upstream in a slot."""
        name = self.boot_name(slot)
        self.engine.ensure_network(
            containers.network_name(self.environment), self.environment.network.subnet, {}
        )
        self.engine.remove(name)
        self.engine.create(
            ContainerSpec(
                name=name,
                image="python:3.13-slim-trixie",
                command=("python3", "-c", UPSTREAM),
                environment={"SLOT": slot},
                tmpfs={"/tmp": "rw"},
                network=containers.network_name(self.environment),
                address=self.environment.address_of(slot),
                restart="no",
            )
        )
        self.engine.start(name)
        return name

    def serve_from(self, slot: Slot) -> None:
        """Start an upstream in a slot and direct all traffic to it."""
        self.boot(slot)
        if not proxy.wait_until_up(self.engine, self.proxy, slot, 20, fresh=True).up:
            raise AssertionError(f"{slot} did not come up")
        proxy.shift(self.host, self.environment, slot)

    def ask(self, path: str = "/api/v1/ping", headers: Mapping[str, str] | None = None) -> Answer:
        return _ask(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10), path, headers)

    def ask_securely(self, authority: Path) -> Answer:
        """Request a ping over TLS, trusting one certificate."""
        context = ssl.create_default_context(cafile=authority)
        port = self.environment.proxy.https_port
        connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
        return _ask(connection, "/api/v1/ping", None)

    def clear(self) -> None:
        for slot in SLOTS:
            self.engine.remove(self.boot_name(slot))
        proxy.remove(self.host, self.environment)
        self.engine.remove_network(containers.network_name(self.environment))


def _ask(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None
) -> Answer:
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()
