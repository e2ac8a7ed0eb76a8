"""Create, inspect and remove a fleet of practice hosts."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from deploy.errors import EngineError, UsageError
from deploy.machine.checkout import ROOT
from workshop.fleet import members, practice_environment
from workshop.fleet.credentials import FleetCredentials, write_private
from workshop.fleet.host_image import ensure_host_image
from workshop.fleet.layout import REGISTRY_PORT, Layout, check_hosts, check_name
from workshop.fleet.members import MEMBER, Member
from workshop.fleet.outer_engine import OuterEngine, connect, engine_errors
from workshop.fleet.practice_environment import PROXY_IMAGE, Roles
from workshop.fleet.practice_host import HostStatus, PracticeHost, answers, wait_for

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

Item = TypeVar("Item")
Result = TypeVar("Result")
Announce = Callable[[str], None]
DEFAULT_NAME = "fleet"
ROLE_PREFIX = "host"


@dataclass(frozen=True)
class FleetStatus:
    """The state of a fleet: its hosts, and address and state of registry and PostgreSQL."""

    hosts: tuple[HostStatus, ...]
    services: dict[str, tuple[str, str]]


class Fleet:
    """Practice hosts with a registry and a PostgreSQL server under one name.

    Several fleets can run at the same time. Generated files are in `.amani/<name>/`. Methods raise
    `UsageError` for invalid requests, `EngineError` if this machine's engine refuses, and
    `HostUnreachable` if a host does not come up.
    """

    def __init__(
        self, name: str = DEFAULT_NAME, *, root: Path = ROOT, announce: Announce = print
    ) -> None:
        self.name = check_name(name)
        self.folder = root.resolve() / ".amani" / name
        self.credentials = FleetCredentials(self.folder)
        self._announce = announce

    @property
    def environment_file(self) -> Path:
        """The environment file for the deployer."""
        return self.folder / f"{self.name}.yml"

    @property
    def secrets_file(self) -> Path:
        """The file with the values of the environment's secrets."""
        return self.folder / f".env.{self.name}"

    @property
    def known_hosts(self) -> Path:
        """The file with the pinned host keys in OpenSSH's format."""
        return self.folder / "known_hosts"

    @property
    def layout(self) -> Layout:
        """Names and addresses of the fleet. Raises `UsageError` if it is down."""
        with engine_errors(self.name):
            network = self._outer.find_network()
            if network is None:
                option = "" if self.name == DEFAULT_NAME else f" --name={self.name}"
                hint = f"Bring it up: invoke fleet.up{option}"
                raise UsageError(f"the fleet {self.name!r} is down", hint=hint)
            return self._outer.layout(network)

    @property
    def registry(self) -> str:
        """The registry's `address:port` for hosts and this machine; plain HTTP."""
        return self.layout.registry

    @property
    def database_url(self) -> str:
        """The URL of PostgreSQL for hosts and this machine, with the password."""
        own = self._has_database_host
        values = practice_environment.secrets(self.layout, self.credentials, own_database_host=own)
        return values["DATABASE_URL"]

    @property
    def database_host(self) -> PracticeHost:
        """The host of PostgreSQL. Raises `UsageError` if it has no host of its own."""
        if not self._has_database_host:
            hint = "Add one: invoke fleet.up --database"
            raise UsageError(f"the fleet {self.name!r} has no host for its database", hint=hint)
        return self._database_host(self.layout)

    def up(
        self,
        hosts: int = 3,
        *,
        web: Sequence[int] | None = None,
        workers: Sequence[int] | None = None,
        database: bool = False,
    ) -> list[str]:
        """Bring the fleet to `hosts` hosts that all answer, from any state.

        Returns a line for each change, and no line if nothing had to change. `web` and `workers`
        are numbers of hosts (see `Roles.choose`). With `database`, PostgreSQL runs as a package on
        a host of its own instead of in a container.
        """
        roles = Roles.choose(check_hosts(hosts), web, workers)
        with self._locked(), engine_errors(self.name):
            self._outer.find_network()  # refuses another checkout's fleet before any change
            self._ensure_images(database)
            layout, made = self._outer.ensure_layout()
            done = [f"{layout.network}: created on {layout.subnet}"] if made else []
            done += self._remove_hosts_above(hosts)
            done += [] if database else self._remove_database_host()
            done += self._ensure_members(layout, hosts, database)
            done += self._write_files(layout, hosts, roles, database)
        return done

    def down(self) -> list[str]:
        """Remove the fleet, its volumes, network and files; returns a line for each container."""
        with self._locked(), engine_errors(self.name):
            network = self._outer.find_network()
            if network is not None:
                self._forget_pushed_images(self._outer.layout(network).registry)
            found = self._outer.containers()
            self._in_parallel(self._outer.remove_member, found)
            self._outer.remove_rest()
            shutil.rmtree(self.folder, ignore_errors=True)
        return sorted(f"{container.name}: removed" for container in found)

    def reset(self) -> None:
        """Remove all deployed objects from the hosts and all tables from the database.

        Takes one or two seconds. Pulled images stay. All hosts must be up.
        """
        with engine_errors(self.name):
            self._in_parallel(PracticeHost.wipe, self.hosts)
            empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
            self._query("-c", empty)
            if self._has_database_host:
                psql = ["runuser", "-u", "postgres", "--", "psql", "-q"]
                owner = f"{empty} AUTHORIZATION {members.DATABASE_USER}"
                self.database_host.run([*psql, "-d", members.DATABASE_USER, "-c", owner])

    def status(self) -> FleetStatus:
        """The state of all hosts and services."""
        hosts = self.hosts
        with engine_errors(self.name):
            found = self._outer.containers()
        layout = self.layout
        addresses = {"registry": layout.registry, "postgres": f"{layout.database}:5432"}
        if self._has_database_host:
            addresses["database"] = f"{layout.database_host}:5432"
        states = {container.labels[MEMBER]: container.status for container in found}
        services = {
            role: (address, states.get(role, "missing")) for role, address in addresses.items()
        }
        statuses = self._in_parallel(PracticeHost.status, hosts)
        return FleetStatus(tuple(statuses), services)

    @property
    def hosts(self) -> list[PracticeHost]:
        """The existing hosts in the order of their numbers."""
        with engine_errors(self.name):
            numbers = [_number(container) for container in self._outer.containers()]
        layout = self.layout
        return [self._host(number, layout) for number in sorted(filter(None, numbers))]

    def host(self, number: int) -> PracticeHost:
        """Host `number`, counted from 1. Raises `UsageError` if it does not exist."""
        hosts = self.hosts
        for host in hosts:
            if host.name == f"{ROLE_PREFIX}{number}":
                return host
        raise UsageError(f"the fleet {self.name!r} has {len(hosts)} hosts, no host {number}")

    def close(self) -> None:
        """Close the connections to this machine's engine; the fleet keeps running."""
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def _client(self) -> DockerClient:
        return connect()

    @property
    def _outer(self) -> OuterEngine:
        return OuterEngine(self._client, self.name, self.folder)

    @property
    def _has_database_host(self) -> bool:
        with engine_errors(self.name):
            return self._outer.find("database") is not None

    def _ensure_images(self, database: bool) -> None:
        from deploy.images.bases import ensure_bases

        bases = [members.REGISTRY_IMAGE, members.DATABASE_IMAGE, PROXY_IMAGE]
        with ThreadPoolExecutor() as pool:
            own = pool.submit(ensure_host_image, self._client, self._announce)
            other = pool.submit(self._ensure_database_image) if database else own
            ensure_bases(bases, announce=self._announce)
            own.result()
            other.result()

    def _ensure_database_image(self) -> None:
        from workshop.fleet.database_image import ensure_database_image

        ensure_database_image(self._client, self._announce)

    def _ensure_members(self, layout: Layout, hosts: int, database: bool) -> list[str]:
        # Keys are generated here, not in the threads, since two threads may need the same key.
        wanted = [
            (members.host(number, layout, self.credentials), self._host(number, layout))
            for number in range(1, hosts + 1)
        ]
        tasks = [lambda: self._ensure_registry(layout), lambda: self._ensure_database(layout)]
        tasks += [partial(self._ensure_host, member, host, layout) for member, host in wanted]
        if database:
            own = members.database_host(layout, self.credentials)
            tasks.append(lambda: self._ensure_database_host(own, layout))
        return [line for lines in self._in_parallel(lambda task: task(), tasks) for line in lines]

    def _ensure_host(self, member: Member, host: PracticeHost, layout: Layout) -> list[str]:
        done = self._outer.ensure_running(member, layout)
        healed = host.heal()
        return _line(member, done or healed)

    def _ensure_database(self, layout: Layout) -> list[str]:
        member = members.database(layout, self.credentials)
        done = self._outer.ensure_running(member, layout)
        container = self._outer.get(member.role)
        probe = ["pg_isready", "-q", "-h", "127.0.0.1", "-U", members.DATABASE_USER]
        wait_for("PostgreSQL", lambda: self._outer.run_in(container, probe)[0] == 0)
        if done in ("created", "replaced"):
            self._query("-f", members.RENEW_PASSWORD)
        return _line(member, done)

    def _ensure_database_host(self, member: Member, layout: Layout) -> list[str]:
        done = self._outer.ensure_running(member, layout)
        # sshd starts last.
        wait_for("sshd of the database host", lambda: answers(member.address, 22, b"SSH-"))
        return _line(member, done)

    def _query(self, *what: str) -> None:
        argv = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-U", members.DATABASE_USER, *what]
        status, output = self._outer.run_in(self._outer.get("postgres"), argv)
        if status != 0:
            raise EngineError(f"postgres: {output.strip()}")

    def _ensure_registry(self, layout: Layout) -> list[str]:
        member = members.registry(layout)
        done = _line(member, self._outer.ensure_running(member, layout))
        wait_for("the registry", lambda: answers(member.address, REGISTRY_PORT))
        if self._push_proxy_image(layout):
            done.append(f"{member.role}: received {PROXY_IMAGE}")
        return done

    def _push_proxy_image(self, layout: Layout) -> bool:
        """Push the proxy's image to the registry; False if it is already there."""
        name, _, tag = PROXY_IMAGE.partition(":")
        repository = f"{layout.registry}/{name}"
        image = self._client.images.get(PROXY_IMAGE)
        manifest = f"http://{repository.replace('/', '/v2/', 1)}/manifests/{tag}"
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        import requests

        answer = requests.head(manifest, headers=accept, timeout=10)
        digest = answer.headers.get("Docker-Content-Digest")
        if f"{repository}@{digest}" in image.attrs["RepoDigests"]:
            return False
        image.tag(repository, tag)
        for line in self._client.images.push(repository, tag, stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"{repository}:{tag} could not be pushed: {line['error']}")
        return True

    def _remove_hosts_above(self, hosts: int) -> list[str]:
        surplus = [
            container
            for container in self._outer.containers()
            if (number := _number(container)) is not None and number > hosts
        ]
        self._in_parallel(self._outer.remove_member, surplus)
        return [f"{container.labels[MEMBER]}: removed" for container in surplus]

    def _remove_database_host(self) -> list[str]:
        found = self._outer.find("database")
        if found is not None:
            self._outer.remove_member(found)
        return ["database: removed"] if found is not None else []

    def _forget_pushed_images(self, registry: str) -> None:
        from docker.errors import NotFound

        for image in self._client.images.list():
            # The digest of a pushed image is a name, too, which stays after the tag is removed.
            for name in (*image.tags, *(image.attrs["RepoDigests"] or ())):
                if name.startswith(f"{registry}/"):
                    with suppress(NotFound):
                        self._client.images.remove(name)

    def _write_files(self, layout: Layout, hosts: int, roles: Roles, database: bool) -> list[str]:
        found = [self._host(number, layout) for number in range(1, hosts + 1)]
        own = self._database_host(layout) if database else None
        document = practice_environment.document(layout, found, roles, own)
        secrets = practice_environment.secrets(layout, self.credentials, own_database_host=database)
        found += [own] if own else []
        files = {
            self.environment_file: practice_environment.render(document, layout),
            self.secrets_file: practice_environment.render_secrets(secrets),
            self.known_hosts: practice_environment.known_hosts(found),
            self.folder
            / "ssh_config": practice_environment.ssh_config(found, str(self.known_hosts)),
        }
        return [
            f"{path.name}: written" for path, text in files.items() if write_private(path, text)
        ]

    def _host(self, number: int, layout: Layout) -> PracticeHost:
        role = f"{ROLE_PREFIX}{number}"
        return PracticeHost(
            name=role,
            address=str(layout.host(number)),
            user="deploy",
            identity_file=self.credentials.identity_file,
            host_key=self.credentials.host_key(number).public,
            outer=self._outer,
        )

    def _database_host(self, layout: Layout) -> PracticeHost:
        return PracticeHost(
            name="database",
            address=str(layout.database_host),
            user="deploy",
            identity_file=self.credentials.identity_file,
            host_key=self.credentials.host_key(members.DATABASE_HOST).public,
            outer=self._outer,
        )

    def _in_parallel(self, call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call for all items at once; raises the first failure after all have ended."""
        with ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(call, items))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the fleet's lock: one process at a time changes it, the others wait."""
        self.folder.parent.mkdir(exist_ok=True)
        with (self.folder.parent / f"{self.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _number(container: Container) -> int | None:
    role = container.labels[MEMBER]
    return int(role.removeprefix(ROLE_PREFIX)) if role.startswith(ROLE_PREFIX) else None


def _line(member: Member, done: str) -> list[str]:
    return [f"{member.role}: {done}"] if done else []
