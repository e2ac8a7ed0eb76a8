"""The Docker Engine of a host, as the few typed calls that steps need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes known so far."""


@dataclass(frozen=True)
class Mount:
    """A bind mount (`source` is an absolute path) or a named volume."""

    source: str
    target: str
    read_only: bool = True

    @property
    def kind(self) -> Literal["bind", "volume"]:
        """`bind` or `volume`, as the engine names them."""
        return "bind" if self.source.startswith("/") else "volume"


@dataclass(frozen=True)
class ContainerSpec:
    """Everything a container is made from. Equal specs give equal containers.

    `memory` in bytes, `cpus` in processors, 0 meaning no limit; `ports` are pairs of address and
    host port by container port; `tmpfs` maps a path to its mount options; `stop_timeout` in
    seconds is what the engine waits between SIGTERM and SIGKILL.
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
    """Whether all are dropped; `capabilities` are then given back one by one."""
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = True
    restart: str = "unless-stopped"
    stop_timeout: int = 30
    healthcheck: bool = True
    """Whether the image's own HEALTHCHECK runs."""


@dataclass(frozen=True)
class ExecResult:
    """How a command in a running container ended."""

    status: int
    output: str


class Engine(Protocol):
    """The Engine API of one host.

    Every method raises `EngineError` with the engine's own words where it refuses, and
    `HostUnreachable` where the transport fails. "Absent" is never an error for `remove_*` and
    `stop`, nor "already so" for `start`, `ensure_*`: they are idempotent.
    """

    def version(self) -> Mapping[str, Any]:
        """The engine's `/version`."""

    def info(self) -> Mapping[str, Any]:
        """The engine's `/info`."""

    def containers(self, labels: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        """`/containers/json?all=1` of the containers that carry all these labels."""

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        """`/containers/{id}/json`, or None where there is no such container."""

    def create(self, spec: ContainerSpec) -> str:
        """Create the container and return its id. The name must be free."""

    def start(self, container: str) -> None:
        """Start it; does nothing where it runs already."""

    def stop(self, container: str, timeout: int) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""

    def kill(self, container: str, signal: str) -> None:
        """Send a signal to its first process."""

    def remove(self, container: str) -> None:
        """Remove it, by force where it runs; anonymous volumes go with it."""

    def wait(self, container: str, timeout: float) -> int:
        """Wait until it exits and return its status; raises EngineError past `timeout` seconds."""

    def logs(self, container: str, tail: int = 50) -> str:
        """The last lines that it printed, both streams."""

    def follow_logs(self, container: str, tail: int = 50) -> Iterator[bytes]:
        """Lines as they come, until the container ends or the iterator is closed."""

    def run_in(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float = 30.0,
    ) -> ExecResult:
        """Run a command in a running container (exec), with `stdin` given and closed."""

    def ask(
        self, container: str, argv: Sequence[str], question: bytes, *, end: bytes, timeout: float
    ) -> str:
        """What a command in a running container answers to a question, without the `end` that its
        answer comes to.

        The command is started (exec) by the first question and goes on to answer later ones; it
        must end when its standard input does. Where it has ended meanwhile it is started again and
        asked again, so a question must bear being asked twice. Raises `EngineError` where it ends
        without an answer, or has none in `timeout` seconds.
        """

    def copy_into(self, container: str, folder: str, archive: bytes) -> None:
        """Unpack a tar archive in a folder of a container, running or not."""

    def images(self) -> Sequence[Mapping[str, Any]]:
        """`/images/json`."""

    def image(self, reference: str) -> Mapping[str, Any] | None:
        """`/images/{name}/json`, or None."""

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
        """Remove an image; False where a container still needs it."""

    def ensure_network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        """Make the bridge network if it is not there; EngineError where the subnet is taken."""

    def remove_network(self, name: str) -> None:
        """Remove a network."""

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """`/volumes/{name}`, or None."""

    def remove_volume(self, name: str) -> None:
        """Remove a named volume and what it holds."""
