"""This machine's engine as a fleet uses it: members brought to where they should be, or removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.errors import EngineError, UsageError
from deploy.hosts.local import LocalHost
from workshop.fleet.layout import LABEL, Layout, candidates, network_name
from workshop.fleet.members import CONFIG, MEMBER, Member, container_body

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

FOLDER = f"{LABEL}.folder"
_PATIENCE = 300.0
"""Seconds that a command in a member may take."""


def connect() -> DockerClient:
    """A client of this machine's engine; raises `EngineError` where it does not answer."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        hint = "Start it, or name it by DOCKER_HOST."
        failure = EngineError(f"the Docker Engine does not answer: {error}")
        failure.hint = hint
        raise failure from None
    return client


class OuterEngine:
    """What one fleet, kept in `folder`, has on this machine's engine.

    Every method raises `EngineError` with the engine's own words where it refuses.
    """

    def __init__(self, client: DockerClient, fleet: str, folder: Path) -> None:
        self.client = client
        self._fleet = fleet
        self._labels = {LABEL: fleet, FOLDER: str(folder)}

    def find_network(self) -> Network | None:
        """The fleet's network; raises `UsageError` where another checkout owns it."""
        name = network_name(self._fleet)
        for network in self.client.networks.list(filters={"label": f"{LABEL}={self._fleet}"}):
            if network.name != name:
                continue
            owner = network.attrs["Labels"].get(FOLDER)
            if owner != self._labels[FOLDER]:
                raise UsageError(
                    f"the fleet {self._fleet!r} belongs to {owner}",
                    hint="Choose another one with --name, or take that one down over there.",
                )
            return network
        return None

    def ensure_layout(self) -> tuple[Layout, bool]:
        """The fleet's layout, its network made where it is missing; and whether it was missing."""
        network = self.find_network()
        if network is not None:
            return self.layout(network), False
        for subnet in candidates(self._fleet, self._taken()):
            if self._create_network(subnet):
                return Layout(self._fleet, subnet), True
        raise UsageError("no subnet is left for another fleet", hint="Take one down: fleet.down")

    def layout(self, network: Network) -> Layout:
        """The layout that stands on an existing network."""
        return Layout(self._fleet, IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"]))

    def ensure_running(self, member: Member, layout: Layout) -> str:
        """Bring a member's container to its wanted state, whatever it is in.

        Returns what was done, such as `created`, or an empty string.
        """
        image = self.client.images.get(member.image)
        network = self.client.networks.get(layout.network)
        body = container_body(member, layout, self._labels, f"{image.id} {network.id}")
        container, done = self.find(member.role), ""
        if container is not None and container.labels.get(CONFIG) != body["Labels"][CONFIG]:
            container.remove(force=True)
            container, done = None, "replaced"
        if container is None:
            container = self._create(layout.container(member.role), body, member)
            done = done or "created"
        revived = self.revive(container, member.address)
        return done or revived

    def revive(self, container: Container, address: str) -> str:
        """Let a container run on its network again, whatever was done to it.

        Returns what it took, such as `unpaused`, or an empty string.
        """
        container.reload()
        name, done = network_name(self._fleet), ""
        if container.status == "paused":
            container.unpause()
            done = "unpaused"
        if name not in container.attrs["NetworkSettings"]["Networks"]:
            self.client.networks.get(name).connect(container, ipv4_address=address)
            done = "reconnected"
        if container.status not in ("running", "paused"):
            container.start()
            done = "started"
        return done

    def find(self, role: str) -> Container | None:
        """The container of a member, or None."""
        found = self.containers(f"{MEMBER}={role}")
        return found[0] if found else None

    def get(self, role: str) -> Container:
        """The container of a member; raises `UsageError` where there is none."""
        container = self.find(role)
        if container is None:
            hint = "Bring the fleet up again: invoke fleet.up"
            raise UsageError(f"the fleet {self._fleet!r} has no {role}", hint=hint)
        return container

    def run_in(self, container: Container, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command as root in a running container; its status and what it printed."""
        # Not docker-py's: it loses what comes in one piece with the answer's head.
        with closing(LocalHost()) as machine:
            result = machine.engine.run_in(str(container.id), argv, timeout=_PATIENCE)
        return result.status, result.output

    def last_words(self, container: Container) -> str:
        """The last lines that a container printed."""
        return bytes(container.logs(tail=10)).decode(errors="replace").strip()

    def containers(self, *labels: str) -> list[Container]:
        """The fleet's containers that carry all these labels, running or not."""
        filters: dict[str, str | list[str] | bool] = {"label": [f"{LABEL}={self._fleet}", *labels]}
        return list(self.client.containers.list(all=True, filters=filters))

    def remove_member(self, container: Container) -> None:
        """Remove a member with everything it keeps."""
        import docker.errors

        container.remove(force=True, v=True)
        try:
            self.client.volumes.get(str(container.name)).remove(force=True)
        except docker.errors.NotFound:
            pass

    def remove_rest(self) -> None:
        """Remove volumes and networks of the fleet that no container holds any more."""
        filters = {"label": f"{LABEL}={self._fleet}"}
        for volume in self.client.volumes.list(filters=filters):
            volume.remove(force=True)
        for network in self.client.networks.list(filters=filters):
            network.remove()

    def _create(self, name: str, body: dict[str, Any], member: Member) -> Container:
        self.client.volumes.create(name, labels=self._labels)
        api: Any = self.client.api  # this one call is untyped
        made = api.create_container_from_config(body, name)
        container = self.client.containers.get(made["Id"])
        container.put_archive("/", member.archive())
        return container

    def _create_network(self, subnet: IPv4Network) -> bool:
        from docker.errors import APIError
        from docker.types import IPAMConfig, IPAMPool

        pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
        try:
            self.client.networks.create(
                network_name(self._fleet),
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[pool]),
                labels=self._labels,
                check_duplicate=True,
            )
        except APIError as error:
            # Another fleet, or a route that only the engine sees, was quicker.
            if "overlap" in str(error.explanation):
                return False
            raise
        return True

    def _taken(self) -> Iterator[IPv4Network]:
        for network in self.client.networks.list():
            for config in network.attrs["IPAM"]["Config"] or ():
                subnet = config.get("Subnet", "")
                if "." in subnet:
                    yield IPv4Network(subnet, strict=False)
        yield from _routes()


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Say a refusal of this machine's engine as an `EngineError` about `what`."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        status = error.status_code or 0
        raise EngineError(f"{what}: {error.explanation or error}", status=status) from None
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError(f"{what}: the Docker Engine does not answer: {error}") from None


def _routes() -> Iterator[IPv4Network]:
    """Where this machine has a way to, but for the default route (Linux; nothing elsewhere)."""
    table = Path("/proc/net/route")
    for line in table.read_text().splitlines()[1:] if table.exists() else ():
        fields = line.split()
        target, mask = (bytes.fromhex(fields[column])[::-1] for column in (1, 7))
        if any(mask):
            yield IPv4Network((target, str(IPv4Address(mask))), strict=False)
