"""Connections to one host or to several hosts in parallel, by SSH or to this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from deploy.errors import DeployError, HostUnreachable
from deploy.hosts.host import DEFAULT_TIMEOUTS, Endpoint, Host, HostEndpoint, HostTimeouts
from deploy.hosts.local import LocalHost
from deploy.hosts.prompt_socket import PromptSocket

if TYPE_CHECKING:
    from deploy.hosts.ssh import SSHHost

AT_ONCE = 32
"""The number of hosts that are connected to at the same time."""


def connect(config: HostEndpoint, timeouts: HostTimeouts = DEFAULT_TIMEOUTS) -> Host:
    """Open a host.

    Raises `UsageError`, `HostKeyMismatch` or `HostUnreachable`.
    """
    _load([config])
    with _Gateways(timeouts) as gateways:
        return _open(config, gateways, timeouts)


def connect_all(
    configs: Sequence[HostEndpoint], timeouts: HostTimeouts = DEFAULT_TIMEOUTS
) -> dict[str, Host | DeployError]:
    """Open all hosts in parallel. Returns the open host or the error, by name."""

    def attempt(config: HostEndpoint) -> Host | DeployError:
        try:
            return _open(config, gateways, timeouts)
        except DeployError as error:
            return error

    _load(configs)
    size = max(1, min(AT_ONCE, len(configs)))
    with _Gateways(timeouts) as gateways, ThreadPoolExecutor(size, "connect") as pool:
        opened = list(pool.map(attempt, configs))
    return {config.name: host for config, host in zip(configs, opened, strict=True)}


def _load(configs: Sequence[HostEndpoint]) -> None:
    """Import the modules that are needed after the connection, during the handshake."""

    def load() -> None:
        if any(config.connection != "local" for config in configs):
            import deploy.hosts.ssh  # noqa: F401
        import deploy.hosts.engine_http  # noqa: F401

    threading.Thread(target=load, name="imports", daemon=True).start()


class _Gateways:
    """Open jump hosts. Each is opened once for all the hosts behind it, and the last of these
    closes it."""

    def __init__(self, timeouts: HostTimeouts) -> None:
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._tried: dict[tuple[str, int, str], SSHHost | DeployError] = {}

    def __enter__(self) -> _Gateways:
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self._tried.values():
            if not isinstance(gateway, DeployError):
                gateway.close()

    def through(self, jump: Endpoint) -> SSHHost:
        """The open jump host, shared. Every caller closes it once."""
        key = (jump.address, jump.port, jump.user)
        with self._lock:
            if key not in self._tried:
                try:
                    self._tried[key] = _open_ssh(f"jump {jump.address}", jump, None, self._timeouts)
                except DeployError as error:
                    self._tried[key] = error
            gateway = self._tried[key]
        if isinstance(gateway, DeployError):
            raise gateway
        return gateway.share()


def _open(config: HostEndpoint, gateways: _Gateways, timeouts: HostTimeouts) -> Host:
    if config.connection == "local":
        return LocalHost(config.name, config.address, timeouts)
    gateway = gateways.through(config.jump) if config.jump is not None else None
    return _open_ssh(config.name, config, gateway, timeouts)


def _open_ssh(
    name: str, endpoint: Endpoint, gateway: SSHHost | None, timeouts: HostTimeouts
) -> SSHHost:
    with contextlib.ExitStack() as cleanup:
        opened = None
        if gateway is not None:
            cleanup.callback(gateway.close)
        else:
            # Before the import, so that sshd forks and sends its banner while Paramiko is loaded.
            opened = cleanup.enter_context(_open_tcp(name, endpoint, timeouts.connect))
        from deploy.hosts.ssh import SSHHost

        host = SSHHost(name, endpoint, gateway=gateway, opened=opened, timeouts=timeouts)
        cleanup.pop_all()
        return host


def _open_tcp(name: str, endpoint: Endpoint, timeout: float) -> PromptSocket:
    try:
        return PromptSocket.connected(endpoint.address, endpoint.port, timeout)
    except OSError as error:
        raise HostUnreachable(
            f"{name}: no TCP connection to {endpoint.address}:{endpoint.port}: {error}",
            hint="Check that the host is up, that the address is right, and that no firewall "
            "blocks the port.",
            host=name,
        ) from error
