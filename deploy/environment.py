"""The typed form of `deploy/environments/*.yml`: what should be.

A field's docstring is its documentation: `docs/environments.md` is made of them.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from deploy import documents, quantities
from deploy.checkout import ROOT
from deploy.errors import UsageError

Role = Literal["web", "worker"]
Place = Literal["proxy", "blue", "green"]

_PLACES: dict[Place, int] = {"proxy": 10, "blue": 11, "green": 12}
_EXAMPLE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
_EXAMPLE_NAMES = re.compile(r"(^|\.)(example(\.(com|net|org))?|invalid)$|(^|/)your-account(/|$)")
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|DSN|(?<!PUBLIC)_KEY)$", re.I)
_SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^@\s]+@|-----BEGIN |AGE-SECRET-KEY-")


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be an absolute path")
    return path.rstrip("/") or "/"


def _folder(path: str) -> str:
    return "~" + _absolute(path[1:]) if path.startswith("~/") else _absolute(path)


def _ip(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _subnet(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise ValueError('must be an IPv4 network such as "172.29.10.0/24"') from None
    if not network.is_private or network.prefixlen > 28:
        raise ValueError("must be a private network with room for 14 addresses (/28 or larger)")
    return str(network)


def _host_key(text: str) -> str:
    kind, _, rest = text.partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    if not kind or blob[4 : 4 + len(kind)] != kind.encode():
        raise ValueError('must be a public host key such as "ssh-ed25519 AAAA..."')
    return text


Seconds = Annotated[float, BeforeValidator(quantities.duration)]
Bytes = Annotated[int, BeforeValidator(quantities.size)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Value = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
HttpPath = Annotated[str, Field(pattern=r"^/\S*$")]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
IpAddress = Annotated[str, AfterValidator(_ip)]
HostKey = Annotated[str, AfterValidator(_host_key)]
Command = Annotated[tuple[str, ...], Field(min_length=1)]
Repository = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*$")
]


class _Section(BaseModel):
    # `defer_build`: only the whole `Environment` is ever validated, and it builds its parts once.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class JumpConfig(_Section):
    """An SSH server that the way to a host leads through."""

    address: Address
    """Its DNS name or IP address."""
    port: Port = 22
    """Its SSH port."""
    user: str
    """Who logs in there."""
    host_keys: tuple[HostKey, ...] = ()
    """Its public host keys; the connection is refused for any other."""
    identity_file: str | None = None
    """The private key to log in with; without one the SSH agent's keys are tried."""


class HostConfig(_Section):
    """One machine with a Docker Engine."""

    name: Name
    """What the host is called in every output and in `--hosts`."""
    connection: Literal["ssh", "local"] = "ssh"
    """`ssh`, or `local` for this machine itself."""
    address: Address = "127.0.0.1"
    """DNS name or IP address; needed for `ssh`."""
    port: Port = 22
    """The SSH port."""
    user: str = "deploy"
    """Who logs in; must be allowed to use the Docker Engine."""
    host_keys: tuple[HostKey, ...] = ()
    """Public host keys (`ssh-keyscan HOST`, compared with `ssh-keygen -lf` on the host itself).
    The connection is refused for any other; no key is ever added silently."""
    identity_file: str | None = None
    """The private key to log in with; without one the SSH agent's keys are tried."""
    jump: JumpConfig | None = None
    """The SSH server that the way leads through."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ("web",)
    """What runs there: `web` behind the proxy, `worker` without one."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.connection == "ssh" and "address" not in self.model_fields_set:
            raise ValueError("a host with `connection: ssh` needs an `address`")
        return self


class Credentials(_Section):
    """Names of the secrets that a registry is logged in with."""

    username: Variable
    """The secret that holds the user name."""
    password: Variable
    """The secret that holds the password or access token."""


class ImageConfig(_Section):
    """Where the image is kept and what its tags are."""

    repository: Repository = "amani-backend"
    """What hosts pull from, always by digest."""
    registries: tuple[Repository, ...] = ()
    """Repositories that a build is pushed to; the first is `repository`. Empty: the image stays
    in this machine's engine, nothing is pushed or pulled."""
    insecure: bool = False
    """Speak plain HTTP to the registries."""
    credentials: dict[Repository, Credentials] = {}
    """By repository, the names of the secrets to log in with."""
    tags: tuple[str, ...] = ()
    """Tags that a build gets, made of `{sha}`, `{version}`, `{branch}` and `{number}`. One whose
    part is unknown is left out: `{version}` is known only on a commit that carries a version."""
    platform: Annotated[str, Field(pattern=r"^linux/[a-z0-9]+(/v[0-9]+)?$")] = "linux/amd64"
    """What the image is built for."""

    @property
    def registered(self) -> bool:
        """Whether hosts pull the image from a registry."""
        return bool(self.registries)

    @field_validator("tags")
    @classmethod
    def _known_parts(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            parts = set(re.findall(r"\{(.*?)\}", tag))
            if unknown := parts - {"sha", "version", "branch", "number"}:
                raise ValueError(
                    f"{tag!r} names {{{min(unknown)}}}; allowed: {{sha}}, {{version}}, {{branch}},"
                    " {number}"
                )
            if not re.fullmatch(r"\w[\w.-]{0,127}", re.sub(r"\{.*?\}", "x", tag), re.ASCII):
                raise ValueError(f"{tag!r} is no image tag: letters, digits, '.', '_', '-'")
        return tags

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.registries and self.registries[0] != self.repository:
            raise ValueError(
                f"the first of `registries` must be `repository` ({self.repository}),"
                f" not {self.registries[0]}"
            )
        if foreign := self.credentials.keys() - set(self.registries):
            raise ValueError(
                f"`credentials` are given for {min(foreign)}, which is not in `registries`"
            )
        return self


class ResourcesConfig(_Section):
    """What a container may use."""

    memory: Bytes = 512_000_000
    """Memory, such as `512MB` or `1GiB`; 0: no limit."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """Processors, such as 0.5 or 2; 0: no limit."""
    pids: Annotated[int, Field(ge=0)] = 256
    """Processes and threads; 0: no limit."""


class RoleConfig(_Section):
    """How the containers of a role run."""

    command: Command | None = None
    """The command as a list; without one the image's own."""
    environment: dict[Variable, Value] = {}
    """Environment variables on top of `settings`."""
    resources: ResourcesConfig = ResourcesConfig.model_construct()
    """What each container may use."""
    stop_timeout: Seconds = 30.0
    """Between SIGTERM and SIGKILL."""
    healthcheck: bool = True
    """Whether the image's own HEALTHCHECK runs."""


class HardeningConfig(_Section):
    """What containers are denied. All on unless said otherwise."""

    read_only: bool = True
    """The root file system cannot be written."""
    drop_capabilities: bool = True
    """No Linux capabilities."""
    no_new_privileges: bool = True
    """No privileges gained through setuid programs."""


class ProxyTimeouts(_Section):
    """How long the proxy waits."""

    connect: Seconds = 2.0
    """For a connection to a slot."""
    client: Seconds = 30.0
    """For the client's next bytes."""
    server: Seconds = 60.0
    """For the service's next bytes."""
    queue: Seconds = 10.0
    """For a free connection to a slot."""
    http_request: Seconds = 10.0
    """For a complete request head."""
    http_keep_alive: Seconds = 30.0
    """For a client's next request on an open connection."""


class ProxyConfig(_Section):
    """The proxy in front of the web containers of a host."""

    image: str = "haproxy:3.0-trixie"
    """The HAProxy image."""
    bind: IpAddress = "0.0.0.0"  # nosec B104 - the public side of a public service
    """The host's address to listen on."""
    http_port: Port = 80
    """The port for HTTP; with `https_port` it redirects there."""
    https_port: Port | None = None
    """The port for HTTPS; needs `certificate`."""
    certificate: AbsolutePath | None = None
    """Path on the host of a PEM file with certificate chain and private key."""
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    """Connections open at once."""
    timeouts: ProxyTimeouts = ProxyTimeouts.model_construct()
    """How long it waits."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.https_port is None) != (self.certificate is None):
            raise ValueError("`https_port` and `certificate` belong together: give both or none")
        if self.https_port == self.http_port:
            raise ValueError(f"`http_port` and `https_port` are both {self.http_port}")
        return self


class HealthConfig(_Section):
    """When a web container is ready, in the eyes of the proxy."""

    path: HttpPath = "/api/v1/readiness"
    """Answers 2xx when the container may get traffic."""
    port: Port = 8000
    """The container's port."""
    interval: Seconds = 1.0
    """Between two checks."""
    timeout: Seconds = 2.0
    """For one answer."""


class SmokeConfig(_Section):
    """What is asked through the public route after a deploy."""

    paths: tuple[HttpPath, ...] = ("/api/v1/ping", "/api/v1/health")
    """Each must answer 2xx."""
    version_path: HttpPath = "/api/v1/version"
    """Must answer JSON that tells the new version."""
    version_field: str = "version"
    """Where that JSON tells it."""
    timeout: Seconds = 10.0
    """For all answers of one host."""
    resolve: Literal["host", "dns"] = "host"
    """`host`: ask each web host itself under the public name; `dns`: go where the name leads."""


class TimeoutsConfig(_Section):
    """How long the deployer waits."""

    connect: Seconds = 10.0
    """For an SSH connection."""
    command: Seconds = 60.0
    """For a command on a host."""
    pull: Seconds = 600.0
    """For an image to arrive."""
    migrate: Seconds = 300.0
    """For the migration."""
    boot: Seconds = 60.0
    """For a new container to be ready."""
    drain: Seconds = 30.0
    """For the old slot to serve its last request."""
    stop: Seconds = 30.0
    """Between SIGTERM and SIGKILL for one-off containers and the proxy."""


class NetworkConfig(_Section):
    """The bridge network of the environment on each host."""

    subnet: Annotated[str, AfterValidator(_subnet)]
    """Such as `172.29.10.0/24`; another one for each environment that shares a host."""


class RetentionConfig(_Section):
    """What is kept for a rollback."""

    releases: Annotated[int, Field(ge=1)] = 5
    """Releases whose image stays on the hosts, the live one included."""


class MigrationsConfig(_Section):
    """How the database schema is brought up to date."""

    command: Command = ("flask", "db", "upgrade")
    """Run once a deploy, in a one-off container of the new image."""
    current_command: Command = ("flask", "db", "current")
    """Prints the live revision."""
    health_path: HttpPath = "/api/v1/health"
    """The route whose JSON tells the live revision."""
    schema_path: Annotated[str, Field(pattern=r"^(/[^/]*)+$")] = (
        "/checks/schema:revision/0/observedValue"
    )
    """Where in that JSON, as a JSON pointer (RFC 6901)."""


class Environment(_Section):
    """A named set of hosts and settings."""

    name: Name
    """The file's name without `.yml`; need not be said."""
    domain: Address
    """The public DNS name of the service."""
    protected: bool = False
    """Refuse to build from a checkout with uncommitted changes."""
    directory: Annotated[str, AfterValidator(_folder)] = ""
    """The deployer's folder on each host: `/var/lib/amani/<name>` unless said otherwise. May
    start with `~/` where all hosts are local."""
    hosts: Annotated[tuple[HostConfig, ...], Field(min_length=1)]
    """The machines."""
    image: ImageConfig = ImageConfig.model_construct()
    """Where the image is kept."""
    roles: dict[Role, RoleConfig] = {}
    """How containers run, by role: `web`, `worker`."""
    hardening: HardeningConfig = HardeningConfig.model_construct()
    """What containers are denied."""
    network: NetworkConfig
    """Addresses of the containers."""
    proxy: ProxyConfig = ProxyConfig.model_construct()
    """The proxy of each web host."""
    health: HealthConfig = HealthConfig.model_construct()
    """When a web container is ready."""
    smoke: SmokeConfig = SmokeConfig.model_construct()
    """What is asked after a deploy."""
    timeouts: TimeoutsConfig = TimeoutsConfig.model_construct()
    """How long the deployer waits."""
    batch: Annotated[Any, BeforeValidator(quantities.batch)] = "50%"
    """Web hosts that move together: a number, or a share such as `50%`."""
    retention: RetentionConfig = RetentionConfig.model_construct()
    """What is kept for a rollback."""
    migrations: MigrationsConfig = MigrationsConfig.model_construct()
    """How the schema is brought up to date."""
    settings: dict[Variable, Value] = {}
    """Environment variables of every container. Never a secret."""
    secrets: tuple[Variable, ...] = ()
    """Names of the secrets that containers must get."""
    optional_secrets: tuple[Variable, ...] = ()
    """Names of the secrets that containers get where there is a value."""
    volumes: dict[Name, AbsolutePath] = {}
    """Docker volumes, by name, and where containers see them."""
    disk_reserve: Bytes = 2_000_000_000
    """Bytes that must stay free where the engine stores its data."""
    clock_skew_limit: Seconds = 5.0
    """How far a host's clock may be off."""

    _every_host: tuple[HostConfig, ...] = PrivateAttr(())

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
        if both := set(self.secrets) & set(self.optional_secrets):
            raise ValueError(f"{min(both)} is in `secrets` and in `optional_secrets`")
        if both := (set(self.secrets) | set(self.optional_secrets)) & self.settings.keys():
            raise ValueError(f"{min(both)} is in `settings` and is a secret")
        return self

    def model_post_init(self, context: Any) -> None:
        """Remember all hosts, so that a selection of them keeps knowing the first."""
        self._every_host = self.hosts

    @property
    def lock_host(self) -> HostConfig:
        """The host that holds the lock: the file's first, whichever hosts were selected."""
        return self._every_host[0]

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

    def role(self, name: Role) -> RoleConfig:
        """How containers of a role run, as the file says or by default."""
        return self.roles.get(name, RoleConfig())

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


def load(
    name: str,
    *,
    folder: Path | None = None,
    hosts: Sequence[str] | None = None,
    placeholders: bool = False,
) -> Environment:
    """Load an environment, with only the named `hosts` where any are given (see `select`).

    The file is sought in `folder` where given, else in the folder that `AMANI_ENVIRONMENTS` names,
    in `deploy/environments/`, and in `.amani/<name>/` (generated ones). Raises UsageError where
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
    """The files of all environments that `load` would find, by name."""
    found = {
        path.parent.name: path
        for path in sorted((ROOT / ".amani").glob("*/*.yml"))
        if path.stem == path.parent.name
    }
    own = os.environ.get("AMANI_ENVIRONMENTS")
    folders = [ROOT / "deploy" / "environments", *([Path(own).expanduser()] if own else [])]
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
    index = {host.name: n for n, host in enumerate(environment._every_host)}
    for host in environment.hosts:
        if host.connection == "local":
            continue
        ways: list[tuple[documents.KeyPath, HostConfig | JumpConfig]] = [
            (("hosts", index[host.name]), host)
        ]
        if host.jump:
            ways.append((("hosts", index[host.name], "jump"), host.jump))
        for path, way in ways:
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


def _is_example(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return bool(_EXAMPLE_NAMES.search(text.partition("/")[0]) or _EXAMPLE_NAMES.search(text))
    return any(address in network for network in _EXAMPLE_NETWORKS)
