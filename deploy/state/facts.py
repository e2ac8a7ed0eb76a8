"""What is: the observed state of an environment, as values. Gathering them decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deploy.state.journal import Record, merge

Role = Literal["web", "worker"]
Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, Slot] = ("blue", "green")


def other(slot: Slot) -> Slot:
    """The place beside this one."""
    return "green" if slot == "blue" else "blue"


@dataclass(frozen=True)
class ContainerFacts:
    """A container of this environment, known by its labels."""

    id: str
    name: str
    role: str
    slot: Slot | None
    version: str
    digest: str
    config: str
    """Hash of everything the container was made from: equal hashes mean equal containers."""
    state: str
    """As the engine says: created, running, paused, restarting, removing, exited, dead."""
    health: str = ""
    started: str = ""
    exit_code: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether its process runs now."""
        return self.state == "running"


@dataclass(frozen=True)
class ServerFacts:
    """One of the proxy's two servers, as its statistics show it."""

    state: Literal["ready", "drain", "maint"]
    """What the operator asked for."""
    up: bool
    """What the proxy's own health check says."""
    weight: int
    sessions: int
    check: str = ""
    """The last check's status, such as `L7OK` or `L4CON`."""


@dataclass(frozen=True)
class ProxyFacts:
    """The proxy of a host."""

    running: bool
    config: str = ""
    """Hash of the configuration it was rendered from (container label)."""
    recorded: Slot | None = None
    """The slot that the configuration file names as live: what a restart would come back with."""
    servers: Mapping[Slot, ServerFacts] = field(default_factory=dict)
    maintenance: bool = False
    present: bool = False
    """Whether the container exists, running or not."""


@dataclass(frozen=True)
class ImageFacts:
    """An image that a host holds."""

    id: str
    digests: tuple[str, ...]
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    created: float


@dataclass(frozen=True)
class HostFacts:
    """One host, at one moment."""

    name: str
    roles: tuple[str, ...]
    engine: str = ""
    architecture: str = ""
    """As images name it: amd64, arm64."""
    disk_free: int = 0
    """Bytes free where the engine stores its data."""
    clock_skew: float = 0.0
    """Seconds that the host's clock is ahead of this machine's."""
    busy_ports: frozenset[int] = frozenset()
    """TCP ports that something listens on."""
    containers: tuple[ContainerFacts, ...] = ()
    proxy: ProxyFacts = ProxyFacts(running=False)
    images: tuple[ImageFacts, ...] = ()
    used_elsewhere: frozenset[str] = frozenset()
    """Ids of the images that others' containers on this engine stand on."""
    records: tuple[Record, ...] = ()
    """The journal, oldest first."""
    secrets: str | None = None
    """The generation that holds exactly the wanted secrets; empty where the host has none such,
    None where the environment needs none.
    """
    generations: frozenset[str] = frozenset()
    """All generations of secrets on the host, those that a kill left half-delivered too."""
    database: str = ""
    """Why the host cannot connect to the database; empty where it can, or nobody asked."""
    proxy_settled: bool = False
    """Whether the proxy runs with the wanted configuration."""

    def container(self, role: str, slot: Slot) -> ContainerFacts | None:
        """The container that stands in a role's slot."""
        return next((c for c in self.containers if c.role == role and c.slot == slot), None)

    def tagged(self, reference: str) -> bool:
        """Whether an image with this name and tag is on the host."""
        return any(reference in image.tags for image in self.images)

    def holds(self, digest: str) -> bool:
        """Whether the image with this digest is on the host."""
        return any(
            digest == image.id or any(name.endswith(digest) for name in image.digests)
            for image in self.images
        )


@dataclass(frozen=True)
class Facts:
    """All hosts of an environment, and why some could not be asked."""

    hosts: Mapping[str, HostFacts]
    unreachable: dict[str, str] = field(default_factory=dict)
    schema: str | None = None
    """The live revision of the database; None when nothing could tell."""

    @property
    def standing_schema(self) -> str | None:
        """The live revision; where nothing tells it, that of the release which was live last."""
        live = [record.schema for record in self.history if record.live]
        return self.schema or (live[-1] if live and live[-1] else None)

    def newer_schema(self, head: str) -> bool:
        """Whether the history shows that the database has gone on from `head`."""
        heads = [record.schema for record in self.history if record.live]
        if self.schema not in heads or head not in heads:
            return False
        return heads.index(head) < heads.index(self.schema)

    @property
    def history(self) -> tuple[Record, ...]:
        """All hosts' journals as one, oldest first."""
        return merge(host.records for host in self.hosts.values())
