"""This machine's engine, which runs the containers of a fleet."""

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
"""Seconds that a command in a container may take."""


def connect() -> DockerClient:
    """A client of this machine's engine. Raises `EngineError` if it does not answer."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        hint = "Start the engine, or set DOCKER_HOST."
        failure = EngineError(f"the Docker Engine does not answer: {error}")
        failure.hint = hint
        raise failure from None
    return client


class OuterEngine:
    """The containers, volumes and network of the fleet in `folder` on this machine's engine.

    Errors of the engine become `EngineError` inside `engine_errors`.
    """

    def __init__(self, client: DockerClient, fleet: str, folder: Path) -> None:
        self.client = client
        self._fleet = fleet
        self._labels = {LABEL: fleet, FOLDER: str(folder)}

    def find_network(self) -> Network | None:
        """The fleet's network, or None. Raises `UsageError` if another checkout owns it."""
        name = network_name(self._fleet)
        for network in self.client.networks.list(filters={"label": f"{LABEL}={self._fleet}"}):
            if network.name != name:
                continue
            owner = network.attrs["Labels"].get(FOLDER)
            if owner != self._labels[FOLDER]:
                raise UsageError(
                    f"the fleet {self._fleet!r} belongs to {owner}",
                    hint="Choose another name with --name, or run fleet.down in that checkout.",
                )
            return network
        return None

    def ensure_layout(self) -> tuple[Layout, bool]:
        """The fleet's layout, and whether its network was missing and has been created."""
        network = self.find_network()
        if network is not None:
            return self.layout(network), False
        for subnet in candidates(self._fleet, self._taken()):
            if self._create_network(subnet):
                return Layout(self._fleet, subnet), True
        raise UsageError("no subnet is free for another fleet", hint="Remove a fleet: fleet.down")

    def layout(self, network: Network) -> Layout:
        """The layout of a fleet on an existing network."""
        return Layout(self._fleet, IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"]))

    def ensure_running(self, member: Member, layout: Layout) -> str:
        """Bring a container to its definition and start it, from any state.

        Returns the change, such as `created`, or an empty string.
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
        """Unpause, reconnect and start a container as necessary.

        Returns the last change, such as `unpaused`, or an empty string.
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
        """The container of a role, or None."""
        found = self.containers(f"{MEMBER}={role}")
        return found[0] if found else None

    def get(self, role: str) -> Container:
        """The container of a role. Raises `UsageError` if it does not exist."""
        container = self.find(role)
        if container is None:
            hint = "Repair the fleet: invoke fleet.up"
            raise UsageError(f"the fleet {self._fleet!r} has no {role}", hint=hint)
        return container

    def run_in(self, container: Container, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command as root in a running container; returns its status and output."""
        # Not by docker-py: it loses output that arrives in one packet with the answer's head.
        with closing(LocalHost()) as machine:
            result = machine.engine.run_in(str(container.id), argv, timeout=_PATIENCE)
        return result.status, result.output

    def log_tail(self, container: Container) -> str:
        """The last 10 lines of a container's log."""
        return bytes(container.logs(tail=10)).decode(errors="replace").strip()

    def containers(self, *labels: str) -> list[Container]:
        """The fleet's containers with all these labels, running or not."""
        filters: dict[str, str | list[str] | bool] = {"label": [f"{LABEL}={self._fleet}", *labels]}
        return list(self.client.containers.list(all=True, filters=filters))

    def remove_member(self, container: Container) -> None:
        """Remove a container and its volume."""
        import docker.errors

        container.remove(force=True, v=True)
        try:
            self.client.volumes.get(str(container.name)).remove(force=True)
        except docker.errors.NotFound:
            pass

    def remove_rest(self) -> None:
        """Remove volumes and networks of the fleet that no container uses."""
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
            # Another fleet took the subnet first, or a route that only the engine sees uses it.
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
    """Convert errors of this machine's engine to an `EngineError` about `what`."""
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
    """The networks of this machine's routes except the default route; none if not on Linux."""
    table = Path("/proc/net/route")
    for line in table.read_text().splitlines()[1:] if table.exists() else ():
        fields = line.split()
        target, mask = (bytes.fromhex(fields[column])[::-1] for column in (1, 7))
        if any(mask):
            yield IPv4Network((target, str(IPv4Address(mask))), strict=False)
