"""The typed form of `config/environments/*.yml`: the wanted state."""

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
    ProxyConfig,
    Role,
    RoleConfig,
)
from deploy.errors import UsageError
from deploy.machine.checkout import ROOT

__all__ = ["Environment", "HostConfig", "find_environments", "load_environment"]

Place = Literal["proxy", "blue", "green"]
Batch = Annotated[Any, BeforeValidator(quantities.parse_batch)]

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
    """The file's name without `.yml`. May be omitted."""
    domain: sections.Address
    """The public DNS name of the service."""
    protected: bool = False
    """Refuse to build from a checkout with uncommitted changes."""
    directory: Annotated[str, AfterValidator(sections.check_folder)] = ""
    """The deployer's folder on each host. Default: `/var/lib/amani/<name>`. May start with `~/` if
    all hosts are local."""
    hosts: Annotated[tuple[HostConfig, ...], AfterValidator(sections.check_filled)]
    """The hosts."""
    image: ImageConfig = ImageConfig.model_construct()
    """The image's registries and tags."""
    roles: dict[Role, RoleConfig] = {}
    """The containers of each role: `web`, `worker`."""
    hardening: sections.HardeningConfig = sections.HardeningConfig.model_construct()
    """Restrictions of every container."""
    network: sections.NetworkConfig
    """The bridge network of the containers."""
    proxy: ProxyConfig = ProxyConfig.model_construct()
    """The proxy of each web host."""
    health: sections.HealthConfig = sections.HealthConfig.model_construct()
    """The proxy's health check of a web container."""
    smoke: sections.SmokeConfig = sections.SmokeConfig.model_construct()
    """The smoke test."""
    timeouts: sections.TimeoutsConfig = sections.TimeoutsConfig.model_construct()
    """The deployer's timeouts."""
    strategy: sections.Name = "blue-green"
    """How a release becomes live: `blue-green` boots it beside the live one, then moves all traffic
    at once."""
    batch: Batch = "50%"
    """The number or share, such as `50%`, of web hosts that a deploy changes at once."""
    retention: sections.RetentionConfig = sections.RetentionConfig.model_construct()
    """Images and containers that are kept for a rollback."""
    migrations: sections.MigrationsConfig = sections.MigrationsConfig.model_construct()
    """Commands that read and change the database schema."""
    backups: sections.BackupsConfig = sections.BackupsConfig.model_construct()
    """Backups of the database."""
    settings: dict[sections.Variable, sections.Value] = {}
    """Environment variables of every container. Must not contain a secret."""
    secrets: tuple[sections.Variable, ...] = ()
    """Names of the secrets that containers require."""
    optional_secrets: tuple[sections.Variable, ...] = ()
    """Names of the secrets that containers get if they have a value."""
    volumes: dict[sections.Name, sections.AbsolutePath] = {}
    """Docker volumes: the path in the containers, by the volume's name."""
    disk_reserve: sections.Bytes = 2_000_000_000
    """Disk space that must stay free on the file system with the engine's data."""
    clock_skew_limit: sections.Seconds = 5.0
    """The largest allowed difference between a host's clock and this machine's."""

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
            raise ValueError(f"two hosts are named {twice[0]!r}; names must be unique")
        return hosts

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, str]) -> dict[str, str]:
        for name, value in settings.items():
            if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
                raise ValueError(
                    f"{name} looks like a secret, which this file must not contain: name it under"
                    " `secrets`, and store its value as docs/environments.md describes"
                )
        return settings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        placed = {role: host for host in self.hosts for role in host.roles}
        if "worker" in placed and self.role("worker").command is None:
            raise ValueError(
                f"host {placed['worker'].name} has the role worker, but there is no"
                " `roles.worker.command` to run"
            )
        if self.directory.startswith("~") and any(h.connection == "ssh" for h in self.hosts):
            raise ValueError("`directory` may start with ~ only if all hosts are local")
        if not self.image.registered and any(h.connection == "ssh" for h in self.hosts):
            raise ValueError(
                "hosts reached by SSH pull the image: `image.registries` must name a registry"
            )
        if self.backups.host not in (None, *(host.name for host in self.hosts)):
            raise ValueError(
                f"`backups.host` names {self.backups.host}, which is not a host of this file"
            )
        if both := set(self.secrets) & set(self.optional_secrets):
            raise ValueError(f"{min(both)} is in `secrets` and in `optional_secrets`")
        if both := (set(self.secrets) | set(self.optional_secrets)) & self.settings.keys():
            raise ValueError(f"{min(both)} is in `settings` and is a secret")
        return self

    def model_post_init(self, context: Any) -> None:
        """Keep the list of all hosts: `select` replaces `hosts`."""
        self._every_host = self.hosts

    @property
    def database_host(self) -> HostConfig:
        """The host that backs up the database, even if it is not selected."""
        web = [host for host in self._every_host if "web" in host.roles]
        named = (host for host in self._every_host if host.name == self.backups.host)
        return next(named, (web or self._every_host)[0])

    @property
    def lock_host(self) -> HostConfig:
        """The host that holds the lock: the first of the file, even if it is not selected."""
        return self._every_host[0]

    @property
    def whole(self) -> bool:
        """Whether all hosts are selected."""
        return len(self.hosts) == len(self._every_host)

    @property
    def source(self) -> Path | None:
        """The file that the environment was loaded from."""
        return self._source

    @property
    def folder(self) -> str:
        """The deployer's folder on each host, with `~` expanded."""
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
        """Names of all secrets that containers may get. Registry logins are not included."""
        return (*self.secrets, *self.optional_secrets)

    def hosts_with(self, role: str) -> tuple[HostConfig, ...]:
        """The selected hosts that have a role, in the file's order."""
        return tuple(host for host in self.hosts if role in host.roles)

    def role(self, name: str) -> RoleConfig:
        """The configuration of a role, or the default one."""
        said = (config for role, config in self.roles.items() if role == name)
        return next(said, RoleConfig.model_construct())

    def address_of(self, place: Place) -> str:
        """The fixed address of the proxy or of a slot in the environment's network."""
        return str(ipaddress.IPv4Network(self.network.subnet)[_PLACES[place]])

    def batches(self, hosts: Sequence[HostConfig]) -> tuple[tuple[HostConfig, ...], ...]:
        """Hosts in batches, in order. A share is rounded down, to at least 1 host."""
        width = self.batch
        if isinstance(width, str):
            width = max(1, len(hosts) * int(width.removesuffix("%")) // 100)
        return tuple(tuple(hosts[n : n + width]) for n in range(0, len(hosts), width))

    def select(self, patterns: Sequence[str]) -> Environment:
        """The same environment with only the hosts that match, in the file's order.

        A pattern is a host's name, may contain `*`, and may list several names with commas.
        Raises `UsageError` if no host matches a pattern.
        """
        names = [host.name for host in self._every_host]
        chosen: set[str] = set()
        for pattern in [p.strip() for text in patterns for p in text.split(",") if p.strip()]:
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise UsageError(
                    f"{self.name} has no host {pattern!r}{documents.suggest(pattern, names)}",
                    hint=f"hosts of {self.name}: {', '.join(names)}",
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
    """Load an environment with the named `hosts`, or all hosts if none are named (see `select`).

    The file is in `folder` if that is given, else in the first of these that has it: the folder
    in `AMANI_ENVIRONMENTS`, `config/environments/`, `.amani/<name>/` (generated files). Raises
    `UsageError` if there is no file or if it is invalid, and, unless `placeholders` is set, if it
    still contains example values that an operator must replace.
    """
    path = _find(name, folder)
    document = documents.read(path)
    said = document.value.get("name") if isinstance(document.value, dict) else None
    if said not in (None, name):
        raise document.refuse(
            document.problem(("name",), f"must be {name!r}, the file's name, found {said!r}")
        )
    environment = documents.parse(Environment, document, name=name)
    environment._source = path
    environment = environment.select(hosts or ())
    if not placeholders and (unfilled := list(_unfilled(environment, document))):
        error = document.refuse(*unfilled)
        error.hint = (
            f"{name} is an example: put your own values into {path}\n"
            "(docs/environments.md explains every key)"
        )
        raise error
    return environment


def find_environments(folder: Path | None = None) -> dict[str, Path]:
    """The files of all environments that `load_environment` finds, by name."""
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
    known = find_environments(folder)
    if name not in known:
        raise UsageError(
            f"there is no environment {name!r}{documents.suggest(name, list(known))}",
            hint=f"environments: {', '.join(sorted(known)) or 'none'}",
        )
    return known[name]


def _unfilled(
    environment: Environment, document: documents.Document
) -> Iterator[documents.Problem]:
    for path, login in _logins(environment):
        if _is_example(login.address):
            text = f"{login.address} is an example; put the host's own address here"
            yield document.problem((*path, "address"), text)
        elif not login.host_keys:
            yield document.problem(
                (*path, "host_keys"),
                "no host key is pinned; show the host's keys with\n"
                f"  ssh-keyscan -p {login.port} {login.address}\n"
                "  compare them with the output of"
                " `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host,"
                " and put them here",
            )
    for n, repository in enumerate(environment.image.registries):
        if _is_example(repository):
            text = f"{repository} is an example; put your own repository here"
            yield document.problem(("image", "registries", n), text)


def _logins(environment: Environment) -> Iterator[tuple[documents.KeyPath, sections.SSHLogin]]:
    """Every SSH server that the deployer logs in to, with its key in the file."""
    index = {host.name: n for n, host in enumerate(environment._every_host)}
    machines: list[tuple[documents.KeyPath, sections.MachineConfig]] = [
        (("hosts", index[host.name]), host) for host in environment.hosts
    ]
    if environment.backups.pitr:
        machines.append((("backups", "pitr", "server"), environment.backups.pitr.server))
    for path, machine in machines:
        if machine.connection == "ssh":
            yield path, machine
            if machine.jump:
                yield (*path, "jump"), machine.jump


def _is_example(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return bool(_EXAMPLE_NAMES.search(text.partition("/")[0]) or _EXAMPLE_NAMES.search(text))
    return any(address in network for network in _EXAMPLE_NETWORKS)
