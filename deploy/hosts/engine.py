"""The Docker Engine of a host, as the typed calls that steps need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes known so far."""


@dataclass(frozen=True)
class Mount:
    """A bind mount (`source` is an absolute path) or a named volume."""

    source: str
    target: str
    read_only: bool = True

    @property
    def kind(self) -> Literal["bind", "volume"]:
        """The engine's name for the kind."""
        return "bind" if self.source.startswith("/") else "volume"


@dataclass(frozen=True)
class ContainerSpec:
    """The specification of a container. Equal specifications give equal containers.

    `memory` is in bytes, `cpus` in processors; 0 means no limit. `ports` maps a container port to
    the host's address and port. `tmpfs` maps a path to its mount options. `stop_timeout` is in
    seconds, from SIGTERM to SIGKILL.
    """

    name: str
    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    address: str = ""
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    user: str = ""
    memory: int = 0
    cpus: float = 0.0
    pids: int = 0
    read_only: bool = True
    drop_capabilities: bool = True
    """Whether all capabilities are dropped. `capabilities` are then added."""
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = True
    restart: str = "unless-stopped"
    stop_timeout: int = 30
    healthcheck: bool = True
    """Whether the image's own HEALTHCHECK runs."""


@dataclass(frozen=True)
class ExecResult:
    """The result of a command in a running container."""

    status: int
    output: str


class Engine(Protocol):
    """The Engine API of one host.

    Every method raises `EngineError` with the engine's message if it refuses, and
    `HostUnreachable` if the transport fails. Methods are idempotent: `remove_*` and `stop`
    succeed if the object does not exist, `start` and `ensure_*` if it already has that state.
    """

    def version(self) -> Mapping[str, Any]:
        """The response of `/version`, as JSON values."""

    def info(self) -> Mapping[str, Any]:
        """The response of `/info`, as JSON values."""

    def containers(self, labels: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        """`/containers/json?all=1` of the containers with all these labels."""

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        """`/containers/{id}/json`, or None if there is no such container."""

    def create(self, spec: ContainerSpec) -> str:
        """Create the container and return its ID. The name must not be in use."""

    def start(self, container: str) -> None:
        """Start the container. Does nothing if it runs."""

    def stop(self, container: str, timeout: int) -> None:
        """Send SIGTERM, and SIGKILL after `timeout` seconds."""

    def kill(self, container: str, signal: str) -> None:
        """Send a signal to the container's first process."""

    def remove(self, container: str) -> None:
        """Remove the container and its anonymous volumes, even if it runs."""

    def wait(self, container: str, timeout: float) -> int:
        """Wait for the end of the container and return its exit status.

        Raises `EngineError` after `timeout` seconds.
        """

    def logs(self, container: str, tail: int = 50) -> str:
        """The last lines of both output streams."""

    def follow_logs(self, container: str, tail: int = 50) -> Iterator[bytes]:
        """Output lines as they arrive, until the container ends or the iterator is closed."""

    def run_in(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float = 30.0,
    ) -> ExecResult:
        """Run a command in a running container (exec). `stdin` is its whole standard input."""

    def ask(
        self, container: str, argv: Sequence[str], question: bytes, *, end: bytes, timeout: float
    ) -> str:
        """Send a question to a command in a running container and return the answer, without `end`.

        The first question starts the command (exec), and later questions reuse it. The command must
        end with its standard input. If it has ended, it is started again and the question is
        repeated, so a question must be safe to repeat. Raises `EngineError` if the command ends
        without an answer, or does not answer within `timeout` seconds.
        """

    def copy_into(self, container: str, folder: str, archive: bytes) -> None:
        """Unpack a tar archive into a folder of a container, running or not."""

    def images(self) -> Sequence[Mapping[str, Any]]:
        """The response of `/images/json`, as JSON values."""

    def image(self, reference: str) -> Mapping[str, Any] | None:
        """`/images/{name}/json`, or None if there is no such image."""

    def pull(
        self,
        repository: str,
        digest: str,
        *,
        credentials: tuple[str, str] | None = None,
        progress: Progress | None = None,
        timeout: float = 600.0,
    ) -> None:
        """Pull `repository@digest`, or `repository:tag` if `digest` holds a tag.

        Raises `EngineError` if the image is not complete within `timeout` seconds.
        """

    def remove_image(self, reference: str) -> bool:
        """Remove an image. Returns False if a container needs it."""

    def ensure_network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        """Create the bridge network if it does not exist. Raises `EngineError` if the subnet is
        taken."""

    def remove_network(self, name: str) -> None: ...

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """`/volumes/{name}`, or None if there is no such volume."""

    def remove_volume(self, name: str) -> None:
        """Remove a named volume and its content."""
