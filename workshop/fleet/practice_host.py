"""One practice host: simulated failures, recovery, and commands inside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import CommandFailed, EngineError, HostUnreachable, UsageError
from workshop.fleet.outer_engine import OuterEngine, engine_errors

if TYPE_CHECKING:
    from docker.models.containers import Container

PATIENCE = 60.0
"""Seconds until a host must be up."""
INTERVAL = 0.05


@dataclass(frozen=True)
class HostStatus:
    """The state of a host: `running`, `paused`, `cut` or another state of its container."""

    name: str
    address: str
    state: str
    engine: str = ""
    """The version of its own engine; empty if that does not answer."""


@dataclass(frozen=True)
class PracticeHost:
    """A host of a fleet. Methods that simulate a failure return when the failure is in effect;
    `heal` and `restart_engine` when the host answers again. All raise `EngineError` if this
    machine's engine refuses, and `UsageError` if the host's state does not allow it."""

    name: str
    address: str
    user: str
    identity_file: Path
    host_key: str
    """Type and key, as in `known_hosts`."""
    outer: OuterEngine = field(repr=False)
    """The engine that runs its container."""

    def pause(self) -> None:
        """Freeze all processes: connections stay open without an answer, as with a stalled VM."""
        with engine_errors(self.name):
            container = self._container
            if container.status != "paused":
                self._require_running(container)
                _freeze(container)

    def kill(self) -> None:
        """Kill all processes at once, as a power failure does."""
        with engine_errors(self.name):
            container = self._container
            if container.status == "paused":
                container.unpause()
                container.reload()
            if container.status == "running":
                container.kill()
                container.wait()

    def cut(self) -> None:
        """Drop all packets from and to the network silently; processes keep running."""
        self.run(["practice-network", "cut"])

    def restart_engine(self) -> None:
        """Restart the Docker Engine; its containers keep running (`live-restore`)."""
        self.run(["sv", "-w", "30", "restart", "docker"])
        self.wait_until_up()

    def heal(self) -> str:
        """Undo `pause`, `kill`, `cut` and a dead engine or sshd, and wait until the host answers.

        Returns the change, such as `unpaused`, or an empty string. Raises `HostUnreachable` if it
        does not come up within `PATIENCE`.
        """
        with engine_errors(self.name):
            done = self.outer.revive(self._container, self.address)
        if self.is_cut():
            self.run(["practice-network", "heal"])
            done = done or "reconnected"
        self.wait_until_up()
        return done

    def wipe(self) -> None:
        """Remove all deployed containers, volumes, networks and files. Images stay."""
        self.run(["practice-wipe"])

    def is_cut(self) -> bool:
        """Whether all its packets are dropped."""
        return self._exec(["practice-network", "is-cut"])[0] == 0

    def status(self) -> HostStatus:
        """The current state of the host."""
        with engine_errors(self.name):
            state = self._container.status
        if state != "running":
            return HostStatus(self.name, self.address, state)
        status, version = self._exec(
            ["timeout", "3", "docker", "version", "--format", "{{.Server.Version}}"]
        )
        state = "cut" if self.is_cut() else state
        return HostStatus(self.name, self.address, state, "" if status else version.strip())

    def run(self, argv: Sequence[str]) -> str:
        """Run a command in the host as root, without SSH; returns its output.

        Raises `CommandFailed` if its status is not 0.
        """
        status, output = self._exec(argv)
        if status != 0:
            raise CommandFailed(self.name, tuple(argv), status, output)
        return output

    def wait_until_up(self, patience: float = PATIENCE) -> None:
        """Wait until sshd and the engine answer.

        Raises `HostUnreachable` if they do not within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        status, _ = self._exec(["await-engine", str(patience)])
        if status != 0:
            raise self._not_answering("its engine", patience)
        while not answers(self.address, 22, b"SSH-"):
            if time.monotonic() > deadline:
                raise self._not_answering("sshd", patience)
            time.sleep(INTERVAL)

    @property
    def _container(self) -> Container:
        return self.outer.get(self.name)

    def _exec(self, argv: Sequence[str]) -> tuple[int, str]:
        with engine_errors(self.name):
            container = self._container
            self._require_running(container)
            return self.outer.run_in(container, argv)

    def _require_running(self, container: Container) -> None:
        if container.status != "running":
            raise UsageError(
                f"{self.name} is {container.status}", hint="Repair it first: fleet.heal"
            )

    def _not_answering(self, what: str, patience: float) -> HostUnreachable:
        with engine_errors(self.name):
            log = self.outer.log_tail(self._container)
        return HostUnreachable(
            f"{self.name}: {what} does not answer after {patience:.0f} s; end of the log:\n{log}",
            host=self.name,
        )


def answers(address: str, port: int, greeting: bytes = b"") -> bool:
    """Whether the port accepts a connection and sends `greeting` first."""
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            return not greeting or connection.recv(len(greeting)) == greeting
    except OSError:
        return False


def _freeze(container: Container) -> None:
    from docker.errors import APIError

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            container.pause()
            return
        except APIError as error:
            # runc gives up if processes are created faster than it can stop them.
            if "unable to freeze" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(INTERVAL)


def wait_for(what: str, ready: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait until `ready` holds. Raises `EngineError` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise EngineError(f"{what} does not answer after {patience:.0f} s")
        time.sleep(INTERVAL)
