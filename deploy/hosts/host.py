"""The shape of a host that steps work on; `ssh.py` and `local.py` fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.hosts.engine import Engine


@dataclass(frozen=True)
class CommandResult:
    """What a command printed and how it ended."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")


class HostTimeouts(Protocol):
    """Seconds that the deployer waits for a host."""

    @property
    def connect(self) -> float:
        """For each phase of opening a connection: TCP, banner, authentication, channel."""

    @property
    def command(self) -> float:
        """For a command that is run without a timeout of its own."""


@dataclass(frozen=True)
class DefaultTimeouts:
    """The `HostTimeouts` of a host that no environment configures."""

    connect: float = 10.0
    command: float = 60.0


DEFAULT_TIMEOUTS = DefaultTimeouts()


class Endpoint(Protocol):
    """Where an SSH server is and how to log in there, as an environment states it."""

    @property
    def address(self) -> str:
        """DNS name or IP address."""

    @property
    def port(self) -> int:
        """TCP port."""

    @property
    def user(self) -> str:
        """Who logs in."""

    @property
    def identity_file(self) -> str | None:
        """The private key to log in with; without one, the agent and the usual files are tried."""

    @property
    def host_keys(self) -> Sequence[str]:
        """Its pinned public keys, each `type base64`."""


class HostConfig(Endpoint, Protocol):
    """A host, as an environment states it."""

    @property
    def name(self) -> str:
        """What it is called in every output."""

    @property
    def connection(self) -> str:
        """`ssh`, or `local` for this machine itself."""

    @property
    def jump(self) -> Endpoint | None:
        """The SSH server that the way leads through."""


class Host(Protocol):
    """One machine with a Docker Engine.

    Every method raises `HostUnreachable` when the transport fails or stays silent past its
    timeout, and may be called from several threads.
    """

    name: str
    address: str

    @property
    def engine(self) -> Engine:
        """The host's Docker Engine, over the same transport, connected on first use."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a command without a shell's reading of it.

        The process is killed after `timeout` seconds (None: `HostTimeouts.command`). Raises
        `CommandFailed` if `check` is set and the status is not 0.
        """

    def write_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file so that a reader sees the old content or the new, never a part.

        Makes missing parent folders (0700).
        """

    def read_file(self, path: str) -> bytes | None:
        """The content of a file, or None where there is none."""

    def refusal(self, address: str, port: int) -> str:
        """Why no TCP connection can be made from this host to a port; empty where one can, or
        where the host forbids to ask.
        """

    def close(self) -> None:
        """End the transport; safe to call twice."""
