"""Facts: the observed state of an environment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deploy.state.journal import Record, merge

Role = Literal["web", "worker"]
Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, Slot] = ("blue", "green")

Weights = Mapping[Slot, int]
"""The slots' shares of the traffic in percent; a slot that is not in it gets none."""

FULL_WEIGHT = 100


def other(slot: Slot) -> Slot:
    return "green" if slot == "blue" else "blue"


def full_share(slot: Slot | None) -> Weights:
    """The weights that send all traffic to one slot, or to none."""
    return {slot: FULL_WEIGHT} if slot else {}


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
    """A hash of everything that the container was made from: equal hashes, equal containers."""
    state: str
    """The engine's state: created, running, paused, restarting, removing, exited, dead."""
    health: str = ""
    started: str = ""
    exit_code: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True)
class ServerFacts:
    """One of the proxy's two servers, from the proxy's statistics."""

    state: Literal["ready", "drain", "maint"]
    """The administrative state: only a `ready` server gets new requests."""
    up: bool
    """The result of the proxy's health check."""
    weight: int
    sessions: int
    """The requests that it serves or queues now."""
    check: str = ""
    """The last check's status, such as `L7OK` or `L4CON`."""


@dataclass(frozen=True)
class ProxyFacts:
    """The proxy of a host: its container, its loaded configuration and its file."""

    running: bool
    config: str = ""
    """Hashes of its container (a label) and of the configuration that it loaded."""
    recorded_weights: Weights = field(default_factory=dict)
    """The weights in the configuration file, with which the proxy restarts."""
    servers: Mapping[Slot, ServerFacts] = field(default_factory=dict)
    maintenance: bool = False
    present: bool = False
    """Whether the container exists, running or not."""

    @property
    def recorded(self) -> Slot | None:
        """The slot with the largest recorded weight: the live one after a restart of the proxy."""
        return max(
            self.recorded_weights, key=lambda slot: self.recorded_weights[slot], default=None
        )

    @property
    def ready_slots(self) -> tuple[Slot, ...]:
        """The slots that the running proxy sends requests to, whether they are up or not."""
        servers = self.servers if self.running else {}
        return tuple(slot for slot in SLOTS if slot in servers and servers[slot].state == "ready")


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
    """The state of one host when the survey asked it."""

    name: str
    roles: tuple[str, ...]
    engine: str = ""
    """The engine's version."""
    architecture: str = ""
    """The architecture in the terms of images: amd64, arm64."""
    disk_free: int = 0
    """Free bytes on the disk that holds the engine's data."""
    clock_skew: float = 0.0
    """Seconds that the host's clock is ahead of this machine's."""
    busy_ports: frozenset[int] = frozenset()
    """TCP ports with a listener."""
    containers: tuple[ContainerFacts, ...] = ()
    proxy: ProxyFacts = ProxyFacts(running=False)
    images: tuple[ImageFacts, ...] = ()
    used_elsewhere: frozenset[str] = frozenset()
    """Ids of the images that containers of other environments on this engine use."""
    records: tuple[Record, ...] = ()
    """The journal, oldest first."""
    secrets: str | None = None
    """The generation that holds exactly the wanted secrets; empty if the host has no such
    generation, None if the environment needs no secrets."""
    generations: frozenset[str] = frozenset()
    """All generations of secrets on the host, including those that a killed run half-delivered."""
    database: str = ""
    """The reason why the host cannot connect to the database; empty if it can or is not asked."""
    proxy_settled: bool = False
    """Whether the proxy runs with the wanted configuration."""

    @property
    def live_slot(self) -> Slot | None:
        """The slot that gets the host's traffic; None if no slot serves.

        The running proxy decides. If it sends traffic to both slots or to none (a run was killed
        during a shift), or does not run, its file decides.
        """
        ready = self.proxy.ready_slots
        if len(ready) == 1:
            return ready[0]
        recorded = self.proxy.recorded
        if recorded is None or recorded in ready:
            return recorded
        standing = self.container("web", recorded)
        return recorded if standing is not None and standing.running else None

    def was_live(self, found: ContainerFacts) -> bool:
        """Whether the journal has a run that made the container's release live on this host."""
        return any(record.live and record.digest == found.digest for record in self.records)

    def container(self, role: str, slot: Slot) -> ContainerFacts | None:
        """The container in a role's slot, whatever its state."""
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
    """The facts of an environment's hosts, and by name why the others are unreachable."""

    hosts: Mapping[str, HostFacts]
    unreachable: dict[str, str] = field(default_factory=dict)
    schema: str | None = None
    """The live revision of the database; None if it is unknown."""

    @property
    def standing_schema(self) -> str | None:
        """The live revision or, if it is unknown, the schema head of the last live release."""
        live = [record.schema for record in self.history if record.live]
        return self.schema or (live[-1] if live and live[-1] else None)

    def newer_schema(self, head: str) -> bool:
        """Whether the journal shows that the database is at a later revision than `head`."""
        heads = [record.schema for record in self.history if record.live]
        if self.schema not in heads or head not in heads:
            return False
        return heads.index(head) < heads.index(self.schema)

    @property
    def history(self) -> tuple[Record, ...]:
        """All hosts' journals as one, oldest first."""
        return merge(host.records for host in self.hosts.values())
