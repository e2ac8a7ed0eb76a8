"""The typed form of `config/environments/*.yml`: what should be."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, PrivateAttr, field_validator, model_validator

from deploy.environment import documents, quantities, sections
from deploy.environment.sections import (
    HostConfig,
    ImageConfig,
    JumpConfig,
    ProxyConfig,
    Role,
    RoleConfig,
)
from deploy.errors import UsageError
from deploy.machine.checkout import ROOT

__all__ = [
    "Environment",
    "HostConfig",
    "ImageConfig",
    "JumpConfig",
    "ProxyConfig",
    "Role",
    "RoleConfig",
    "available",
    "load_environment",
]

Place = Literal["proxy", "blue", "green"]
Batch = Annotated[Any, BeforeValidator(quantities.batch)]

_PLACES: dict[Place, int] = {"proxy": 10, "blue": 11, "green": 12}
_EXAMPLE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
_EXAMPLE_NAMES = re.compile(r"(^|\.)(example(\.(com|net|org))?|invalid)$|(^|/)your-account(/|$)")
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|DSN|(?<!PUBLIC)_KEY)$", re.I)
_SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^@\s]+@|-----BEGIN |AGE-SECRET-KEY-")


class Environment(sections.Section):
    """A named set of hosts and settings."""

    name: sections.Name
    """The file's name without `.yml`; it may be left out."""
    domain: sections.Address
    """The public DNS name of the service."""
    protected: bool = False
    """Refuse to build from a checkout with uncommitted changes."""
    directory: Annotated[str, AfterValidator(sections.folder)] = ""
    """The deployer's folder on each host: `/var/lib/amani/<name>` unless said otherwise. May
    start with `~/` where all hosts are local."""
    hosts: Annotated[tuple[HostConfig, ...], AfterValidator(sections.filled)]
    """The machines."""
    image: ImageConfig = ImageConfig.model_construct()
    """Where the image is kept."""
    roles: dict[Role, RoleConfig] = {}
    """How containers run, by role: `web`, `worker`."""
    hardening: sections.HardeningConfig = sections.HardeningConfig.model_construct()
    """What containers are denied."""
    network: sections.NetworkConfig
    """Addresses of the containers."""
    proxy: ProxyConfig = ProxyConfig.model_construct()
    """The proxy of each web host."""
    health: sections.HealthConfig = sections.HealthConfig.model_construct()
    """When a web container is ready."""
    smoke: sections.SmokeConfig = sections.SmokeConfig.model_construct()
    """What is asked after a deploy."""
    timeouts: sections.TimeoutsConfig = sections.TimeoutsConfig.model_construct()
    """How long the deployer waits."""
    strategy: sections.Name = "blue-green"
    """How a release becomes live: `blue-green` boots it beside the live one, then moves all traffic
    at once."""
    batch: Batch = "50%"
    """Web hosts that move together: a number, or a share such as `50%`."""
    retention: sections.RetentionConfig = sections.RetentionConfig.model_construct()
    """What is kept for a rollback."""
    migrations: sections.MigrationsConfig = sections.MigrationsConfig.model_construct()
    """How the schema is brought up to date."""
    backups: sections.BackupsConfig = sections.BackupsConfig.model_construct()
    """How the database is backed up."""
    settings: dict[sections.Variable, sections.Value] = {}
    """Environment variables of every container. Never a secret."""
    secrets: tuple[sections.Variable, ...] = ()
    """Names of the secrets that containers must get."""
    optional_secrets: tuple[sections.Variable, ...] = ()
    """Names of the secrets that containers get where there is a value."""
    volumes: dict[sections.Name, sections.AbsolutePath] = {}
    """Docker volumes, by name, and where containers see them."""
    disk_reserve: sections.Bytes = 2_000_000_000
    """Bytes that must stay free where the engine stores its data."""
    clock_skew_limit: sections.Seconds = 5.0
    """How far a host's clock may be off."""

    _every_host: tuple[HostConfig, ...] = PrivateAttr(())
    _source: Path | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _default_directory(cls, values: Any) -> Any:
        return {"directory": f"/var/lib/amani/{values.get('name')}", **values}

    @field_validator("hosts")
    @classmethod
    def _unique_names(cls, hosts: tuple[HostConfig, ...]) -> tuple[HostConfig, ...]:
        names = [host.name for host in hosts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two hosts are called {twice[0]!r}; a name must be unique")
        return hosts

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, str]) -> dict[str, str]:
        for name, value in settings.items():
            if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
                raise ValueError(
                    f"{name} looks like a secret, and this file is no place for one: name it under"
                    " `secrets` and give its value as docs/environments.md says"
                )
        return settings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        placed = {role: host for host in self.hosts for role in host.roles}
        if "worker" in placed and self.role("worker").command is None:
            raise ValueError(
                f"host {placed['worker'].name} has the role worker, but there is no"
                " `roles.worker.command` that says what to run"
            )
        if self.directory.startswith("~") and any(h.connection == "ssh" for h in self.hosts):
            raise ValueError("`directory` may start with ~ only where all hosts are local")
        if not self.image.registered and any(h.connection == "ssh" for h in self.hosts):
            raise ValueError(
                "hosts reached by SSH pull the image: `image.registries` must name one"
            )
        if self.backups.host not in (None, *(host.name for host in self.hosts)):
            raise ValueError(f"`backups.host` names {self.backups.host}, which is no host here")
        if both := set(self.secrets) & set(self.optional_secrets):
            raise ValueError(f"{min(both)} is in `secrets` and in `optional_secrets`")
        if both := (set(self.secrets) | set(self.optional_secrets)) & self.settings.keys():
            raise ValueError(f"{min(both)} is in `settings` and is a secret")
        return self

    def model_post_init(self, context: Any) -> None:
        """Remember all hosts, so that a selection of them keeps knowing the first."""
        self._every_host = self.hosts

    @property
    def database_host(self) -> HostConfig:
        """The host where the database is backed up, whichever hosts were selected."""
        web = [host for host in self._every_host if "web" in host.roles]
        named = (host for host in self._every_host if host.name == self.backups.host)
        return next(named, (web or self._every_host)[0])

    @property
    def lock_host(self) -> HostConfig:
        """The host that holds the lock: the file's first, whichever hosts were selected."""
        return self._every_host[0]

    @property
    def whole(self) -> bool:
        """Whether all hosts are selected."""
        return len(self.hosts) == len(self._every_host)

    @property
    def source(self) -> Path | None:
        """The file that it was loaded from."""
        return self._source

    @property
    def folder(self) -> str:
        """The deployer's folder on each host as an absolute path."""
        return os.path.expanduser(self.directory)

    @property
    def url(self) -> str:
        """The public base URL, without a slash at its end."""
        scheme, port = "http", self.proxy.http_port
        if self.proxy.https_port:
            scheme, port = "https", self.proxy.https_port
        usual = {"http": 80, "https": 443}[scheme]
        return f"{scheme}://{self.domain}" + ("" if port == usual else f":{port}")

    @property
    def container_secrets(self) -> tuple[str, ...]:
        """Names of all secrets that containers may get; registry credentials are not among them."""
        return (*self.secrets, *self.optional_secrets)

    def hosts_with(self, role: str) -> tuple[HostConfig, ...]:
        """The selected hosts that have a role, in the file's order."""
        return tuple(host for host in self.hosts if role in host.roles)

    def role(self, name: str) -> RoleConfig:
        """How containers of a role run, as the file says or by default."""
        said = (config for role, config in self.roles.items() if role == name)
        return next(said, RoleConfig.model_construct())

    def address_of(self, place: Place) -> str:
        """The fixed address of the proxy or of a slot in the environment's network."""
        return str(ipaddress.IPv4Network(self.network.subnet)[_PLACES[place]])

    def batches(self, hosts: Sequence[HostConfig]) -> tuple[tuple[HostConfig, ...], ...]:
        """Hosts in the groups that move together, in order; a share is rounded down, at least 1."""
        width = self.batch
        if isinstance(width, str):
            width = max(1, len(hosts) * int(width.removesuffix("%")) // 100)
        return tuple(tuple(hosts[n : n + width]) for n in range(0, len(hosts), width))

    def select(self, patterns: Sequence[str]) -> Environment:
        """The same environment with only the hosts named, in the file's order.

        A pattern is a host's name, may hold `*`, and may be several with commas between. Raises
        UsageError for one that no host matches.
        """
        names = [host.name for host in self._every_host]
        chosen: set[str] = set()
        for pattern in [p.strip() for text in patterns for p in text.split(",") if p.strip()]:
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise UsageError(
                    f"{self.name} has no host {pattern!r}{documents.suggest(pattern, names)}",
                    hint=f"its hosts: {', '.join(names)}",
                )
            chosen |= matching
        hosts = tuple(host for host in self._every_host if host.name in chosen)
        return self.model_copy(update={"hosts": hosts}) if chosen else self


def load_environment(
    name: str,
    *,
    folder: Path | None = None,
    hosts: Sequence[str] | None = None,
    placeholders: bool = False,
) -> Environment:
    """Load an environment, with only the named `hosts` where any are given (see `select`).

    The file is sought in `folder` where given, else in the folder that `AMANI_ENVIRONMENTS` names,
    in `config/environments/`, and in `.amani/<name>/` (generated ones). Raises UsageError where
    there is none or where anything in it is wrong; also, unless `placeholders` is set, where
    it still holds example values that an operator has to fill in.
    """
    path = _find(name, folder)
    document = documents.read(path)
    said = document.value.get("name") if isinstance(document.value, dict) else None
    if said not in (None, name):
        raise document.refuse(
            document.problem(("name",), f"must be {name!r} as the file's name says, found {said!r}")
        )
    environment = documents.parse(Environment, document, name=name)
    environment._source = path
    environment = environment.select(hosts or ())
    if not placeholders and (unfilled := list(_unfilled(environment, document))):
        error = document.refuse(*unfilled)
        error.hint = (
            f"{name} is an example until you fill in your own values in {path}\n"
            "(docs/environments.md tells what each key means)"
        )
        raise error
    return environment


def available(folder: Path | None = None) -> dict[str, Path]:
    """The files of all environments that `load_environment` would find, by name."""
    found = {
        path.parent.name: path
        for path in sorted((ROOT / ".amani").glob("*/*.yml"))
        if path.stem == path.parent.name
    }
    own = os.environ.get("AMANI_ENVIRONMENTS")
    folders = [ROOT / "config" / "environments", *([Path(own).expanduser()] if own else [])]
    if folder is not None:
        found, folders = {}, [folder]
    for place in folders:
        found |= {path.stem: path for path in sorted(place.glob("*.yml"))}
    return found


def _find(name: str, folder: Path | None) -> Path:
    known = available(folder)
    if name not in known:
        raise UsageError(
            f"there is no environment {name!r}{documents.suggest(name, list(known))}",
            hint=f"environments: {', '.join(sorted(known)) or 'none'}",
        )
    return known[name]


def _unfilled(
    environment: Environment, document: documents.Document
) -> Iterator[documents.Problem]:
    for path, way in _ways(environment):
        if _is_example(way.address):
            text = f"{way.address} is an example; put the host's own address here"
            yield document.problem((*path, "address"), text)
        elif not way.host_keys:
            yield document.problem(
                (*path, "host_keys"),
                "no host key is pinned; show the host's keys with\n"
                f"  ssh-keyscan -p {way.port} {way.address}\n"
                "  compare them with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`"
                " prints on the host, and put them here",
            )
    for n, repository in enumerate(environment.image.registries):
        if _is_example(repository):
            text = f"{repository} is an example; put your own repository here"
            yield document.problem(("image", "registries", n), text)


def _ways(
    environment: Environment,
) -> Iterator[tuple[documents.KeyPath, HostConfig | JumpConfig | sections.ServerConfig]]:
    """Every SSH server that is logged in to, and where the file names it."""
    index = {host.name: n for n, host in enumerate(environment._every_host)}
    ends: list[tuple[documents.KeyPath, HostConfig | sections.ServerConfig]] = [
        (("hosts", index[host.name]), host) for host in environment.hosts
    ]
    if environment.backups.pitr:
        ends.append((("backups", "pitr", "server"), environment.backups.pitr.server))
    for path, end in ends:
        if end.connection == "ssh":
            yield path, end
            if end.jump:
                yield (*path, "jump"), end.jump


def _is_example(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return bool(_EXAMPLE_NAMES.search(text.partition("/")[0]) or _EXAMPLE_NAMES.search(text))
    return any(address in network for network in _EXAMPLE_NETWORKS)
