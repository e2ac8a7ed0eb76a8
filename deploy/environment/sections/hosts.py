"""Machines that the deployer logs in to by SSH: hosts, jump hosts, the database's server."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from deploy.environment.sections.values import (
    Address,
    HostKey,
    Name,
    Port,
    Role,
    Section,
    check_filled,
)


class SSHServer(Section):
    """An SSH server, and the user to log in as."""

    address: Address
    """DNS name or IP address."""
    port: Port = 22
    """The SSH port."""
    user: str
    """The user to log in as."""
    host_keys: tuple[HostKey, ...] = ()
    """The server's public host keys. A server with any other key is refused."""


class SSHLogin(SSHServer):
    """An SSH server that the deployer itself logs in to."""

    identity_file: str | None = None
    """The private key to log in with. Default: the keys of the SSH agent and of `~/.ssh`."""


class JumpConfig(SSHLogin):
    """The SSH server through which the machine is reached."""


class MachineConfig(SSHLogin):
    """A machine reached by SSH, or this machine itself."""

    connection: Literal["ssh", "local"] = "ssh"
    """`ssh`, or `local` for this machine."""
    address: Address = "127.0.0.1"
    """DNS name or IP address. Required for `ssh`."""
    jump: JumpConfig | None = None
    """The SSH server through which the machine is reached."""

    @model_validator(mode="after")
    def _require_address(self) -> Self:
        if self.connection == "ssh" and "address" not in self.model_fields_set:
            raise ValueError("`connection: ssh` needs an `address`")
        return self


class HostConfig(MachineConfig):
    """One machine with a Docker Engine."""

    name: Name
    """The host's name in every output and in `--hosts`."""
    user: str = "deploy"
    """The user to log in as. It needs access to the Docker Engine."""
    host_keys: tuple[HostKey, ...] = ()
    """The host's public keys: run `ssh-keyscan HOST`, and compare the keys with the output of
    `ssh-keygen -lf` on the host itself. A host with any other key is refused; the deployer never
    adds a key."""
    roles: Annotated[tuple[Role, ...], AfterValidator(check_filled)] = ("web",)
    """The roles of the host: `web` (behind the proxy), `worker` (without a proxy)."""


class ServerConfig(MachineConfig):
    """The machine with PostgreSQL from the packages of Debian or Ubuntu."""

    user: str = "root"
    """The user to log in as: `root`, or a user with sudo without a password."""

    @property
    def name(self) -> str:
        """The machine's name in every output."""
        return "database"
