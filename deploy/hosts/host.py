"""The interface of a host. `ssh.py` and `local.py` implement it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.hosts.engine import Engine


@dataclass(frozen=True)
class CommandResult:
    """The exit status and the output of a command."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output, decoded as UTF-8 with replacements."""
        return self.stdout.decode(errors="replace")


class HostTimeouts(Protocol):
    """Timeouts for a host, in seconds."""

    @property
    def connect(self) -> float:
        """For each phase of a connection: TCP, banner, authentication, channel."""

    @property
    def command(self) -> float:
        """For a command without a timeout of its own."""


@dataclass(frozen=True)
class DefaultTimeouts:
    """The `HostTimeouts` of a host without an environment."""

    connect: float = 10.0
    command: float = 60.0


DEFAULT_TIMEOUTS = DefaultTimeouts()


class Endpoint(Protocol):
    """An SSH server, and the user and keys for the login."""

    @property
    def address(self) -> str:
        """The DNS name or IP address."""

    @property
    def port(self) -> int:
        """The TCP port of the SSH server."""

    @property
    def user(self) -> str:
        """The user to log in as."""

    @property
    def identity_file(self) -> str | None:
        """The private key to log in with. None: the keys of the agent and of ~/.ssh."""

    @property
    def host_keys(self) -> Sequence[str]:
        """The pinned public keys, each `type base64`."""


class HostEndpoint(Endpoint, Protocol):
    """A host, reached by SSH or on this machine."""

    @property
    def name(self) -> str:
        """The host's name in every output."""

    @property
    def connection(self) -> str:
        """`ssh`, or `local` for this machine."""

    @property
    def jump(self) -> Endpoint | None:
        """The SSH server through which the host is reached."""


class Host(Protocol):
    """One machine with a Docker Engine.

    Every method raises `HostUnreachable` if the transport fails or does not answer in time, and
    may be called from several threads.
    """

    name: str
    address: str

    @property
    def engine(self) -> Engine:
        """The host's Docker Engine, over the same transport. Connected on first use."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a command without a shell.

        The process is killed after `timeout` seconds (None: `HostTimeouts.command`). Raises
        `CommandFailed` if `check` is set and the status is not 0.
        """

    def write_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file atomically: a reader sees the old content or the new content.

        Creates missing parent folders (0700).
        """

    def read_file(self, path: str) -> bytes | None:
        """The content of a file, or None if it does not exist."""

    def refusal(self, address: str, port: int) -> str:
        """The reason why this host cannot open a TCP connection to a port.

        Empty if it can, or if its SSH server forbids the attempt.
        """

    def close(self) -> None:
        """Close the transport. Safe to call twice."""
