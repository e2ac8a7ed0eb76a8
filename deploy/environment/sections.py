"""The parts of an environment file: one model a section.

A field's docstring is its documentation: `docs/environments.md` is made of them.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from deploy.environment import quantities

Role = Literal["web", "worker"]
T = TypeVar("T")


def absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be an absolute path")
    return path.rstrip("/") or "/"


def folder(path: str) -> str:
    return "~" + absolute(path[1:]) if path.startswith("~/") else absolute(path)


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


def _like(pattern: str, wanted: str) -> AfterValidator:
    """Text that the whole of `pattern` matches; `wanted` is how people call that."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return AfterValidator(check)


def filled(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("must name at least one")
    return values


Seconds = Annotated[float, BeforeValidator(quantities.duration)]
WholeSeconds = Annotated[int, BeforeValidator(lambda value: math.ceil(quantities.duration(value)))]
Bytes = Annotated[int, BeforeValidator(quantities.size)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[
    str, _like(r"[a-z][a-z0-9-]{0,30}", "lower-case letters, digits and dashes, at most 31")
]
Variable = Annotated[
    str, _like(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and _")
]
Value = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
AbsolutePath = Annotated[str, AfterValidator(absolute)]
HttpPath = Annotated[str, _like(r"/\S*", "a path that begins with /")]
JsonPointer = Annotated[str, _like(r"(/[^/]*)+", "a JSON pointer such as /checks/0/value")]
Address = Annotated[str, _like(r"[A-Za-z0-9:][A-Za-z0-9.:-]*", "a DNS name or an IP address")]
IpAddress = Annotated[str, AfterValidator(_ip)]
HostKey = Annotated[str, AfterValidator(_host_key)]
Command = Annotated[tuple[str, ...], AfterValidator(filled)]
Platform = Annotated[
    str, _like(r"linux/[a-z0-9]+(/v[0-9]+)?", "a platform such as linux/amd64 or linux/arm64")
]
Recipient = Annotated[
    str, _like(r"age1[a-z0-9]{50,}|ssh-(ed25519|rsa) \S+( .*)?", "a public age or SSH key")
]
Repository = Annotated[
    str,
    _like(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*",
        "a repository such as ghcr.io/owner/name, without a tag",
    ),
]


class Section(BaseModel):
    # `defer_build`: only the whole `Environment` is ever validated, and it builds its parts once.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class JumpConfig(Section):
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


class HostConfig(Section):
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
    roles: Annotated[tuple[Role, ...], AfterValidator(filled)] = ("web",)
    """What runs there: `web` behind the proxy, `worker` without one."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.connection == "ssh" and "address" not in self.model_fields_set:
            raise ValueError("a host with `connection: ssh` needs an `address`")
        return self


class Credentials(Section):
    """Names of the secrets that a registry is logged in with."""

    username: Variable
    """The secret that holds the user name."""
    password: Variable
    """The secret that holds the password or access token."""


class ImageConfig(Section):
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
    platform: Platform = "linux/amd64"
    """What the image is built for."""
    extras: Literal["", "observability"] = ""
    """What a build brings beside the service's own requirements: `observability` is what Sentry and
    OpenTelemetry need."""

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


class ResourcesConfig(Section):
    """What a container may use."""

    memory: Bytes = 512_000_000
    """Memory, such as `512MB` or `1GiB`; 0: no limit."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """Processors, such as 0.5 or 2; 0: no limit."""
    pids: Annotated[int, Field(ge=0)] = 256
    """Processes and threads; 0: no limit."""


class RoleConfig(Section):
    """How the containers of a role run."""

    command: Command | None = None
    """The command as a list; without one the image's own."""
    environment: dict[Variable, Value] = {}
    """Environment variables on top of `settings`."""
    resources: ResourcesConfig = ResourcesConfig.model_construct()
    """What each container may use."""
    stop_timeout: WholeSeconds = 30
    """Between SIGTERM and SIGKILL."""
    healthcheck: bool = True
    """Whether the image's own HEALTHCHECK runs."""


class HardeningConfig(Section):
    """What containers are denied. All on unless said otherwise."""

    read_only: bool = True
    """The root file system cannot be written."""
    drop_capabilities: bool = True
    """No Linux capabilities."""
    no_new_privileges: bool = True
    """No privileges gained through setuid programs."""


class ProxyTimeouts(Section):
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


class ProxyConfig(Section):
    """The proxy in front of the web containers of a host."""

    image: str = "haproxy:3.0-trixie"
    """The HAProxy image."""
    bind: IpAddress = "0.0.0.0"  # nosec B104
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


class HealthConfig(Section):
    """When a web container is ready, in the eyes of the proxy."""

    path: HttpPath = "/api/v1/readiness"
    """Answers 2xx when the container may get traffic."""
    port: Port = 8000
    """The container's port."""
    interval: Seconds = 1.0
    """Between two checks."""
    timeout: Seconds = 2.0
    """For one answer."""


class SmokeAccount(Section):
    """An account of the service that `invoke smoke` signs in with; it needs no rights."""

    username: Variable
    """The secret that holds its name; containers do not get it."""
    password: Variable
    """The secret that holds its password; containers do not get it."""
    sign_in_path: HttpPath = "/api/v1/auth/login"
    """Where a POST of the two as JSON is answered with a token."""
    username_field: str = "email"
    """What that JSON calls the name."""
    token_field: str = "token"  # nosec B105
    """Where the answer's JSON holds the token."""
    path: HttpPath = "/api/v1/auth/me"
    """Read with the token; must answer 200."""


class SmokeConfig(Section):
    """What is asked through the public route: the first four keys and `resolve` by every deploy,
    all of them by `invoke smoke`."""

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
    document_path: HttpPath | None = "/api/v1/openapi.json"
    """Must answer an OpenAPI 3 document; `null`: there is none."""
    unknown_path: HttpPath | None = "/api/v1/no-such-route"
    """Must answer 404 as `application/problem+json`; `null`: not asked."""
    headers: dict[str, str] = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "",
        "Referrer-Policy": "",
        "X-Request-ID": "",
    }
    """Headers of every answer, by name, and what each must say; empty: it only must be there."""
    response_limit: Seconds = 1.0
    """For the median of five answers to each of `paths`."""
    certificate_days: Annotated[int, Field(ge=0)] = 14
    """How long the certificate must be good for yet."""
    account: SmokeAccount | None = None
    """Who makes the authenticated read; without one there is none."""


class TimeoutsConfig(Section):
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
    stop: WholeSeconds = 30
    """Between SIGTERM and SIGKILL for one-off containers and the proxy."""


class NetworkConfig(Section):
    """The bridge network of the environment on each host."""

    subnet: Annotated[str, AfterValidator(_subnet)]
    """Such as `172.29.10.0/24`; another one for each environment that shares a host."""


class RetentionConfig(Section):
    """What is kept for a rollback."""

    releases: Annotated[int, Field(ge=1)] = 5
    """Releases whose image stays on the hosts, the live one included."""
    standby: Literal["running", "stopped"] = "running"
    """What the web container that served before does until the next deploy: run on without traffic,
    watched by the proxy, so that a rollback only moves the traffic; or stop, which gives back its
    memory and its connections to the database, once it has served its last request."""


class MigrationsConfig(Section):
    """How the database schema is brought up to date."""

    command: Command = ("flask", "db", "upgrade")
    """Run for each new revision, which is appended, in a one-off container of the new image."""
    downgrade_command: Command = ("flask", "db", "downgrade")
    """Goes back to the revision that is appended; run in the image that knows the newer ones."""
    loss_command: Command = ("flask", "amani", "schema-loss")
    """Prints what going back to the revision that is appended would lose, a line for each."""
    current_command: Command = ("flask", "db", "current")
    """Prints the live revision."""
    health_path: HttpPath = "/api/v1/health"
    """The route whose JSON tells the live revision."""
    schema_path: JsonPointer = "/checks/schema:revision/0/observedValue"
    """Where in that JSON, as a JSON pointer (RFC 6901)."""


class KeepConfig(Section):
    """Which backups `db.prune` keeps. What a kept release may be rolled back to stays besides."""

    last: Annotated[int, Field(ge=1)] = 7
    """The newest ones."""
    daily: Annotated[int, Field(ge=0)] = 7
    """The newest of each of the last days that have any."""
    weekly: Annotated[int, Field(ge=0)] = 5
    """The newest of each of the last weeks."""
    monthly: Annotated[int, Field(ge=0)] = 12
    """The newest of each of the last months."""


class CopyConfig(Section):
    """A place away from the host that every `db.backup` is copied to."""

    name: Name
    """What it is called in every output and in `--place`."""
    kind: Literal["s3", "ssh"]
    """An S3-compatible store, or another machine by SSH (SFTP)."""
    endpoint: str = ""
    """For `s3`: its URL, such as `https://s3.eu-west-1.amazonaws.com`."""
    region: str = ""
    """For `s3`: where it asks for one."""
    address: Address = "127.0.0.1"
    """For `ssh`: DNS name or IP address."""
    port: Port = 22
    """For `ssh`: the port."""
    user: str = "backup"
    """For `ssh`: who logs in."""
    host_keys: tuple[HostKey, ...] = ()
    """For `ssh`: its public host keys; any other is refused."""
    path: str
    """For `s3` the bucket, with `/folder` behind it where wanted; for `ssh` the folder."""
    username: Variable | None = None
    """For `s3`: the secret that holds the access key's id."""
    key: Variable
    """The secret that holds the secret access key, or the private SSH key."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "s3" and not (self.endpoint and self.username):
            raise ValueError("`kind: s3` needs `endpoint` and `username`")
        if self.kind == "ssh" and not (self.host_keys and "address" in self.model_fields_set):
            raise ValueError("`kind: ssh` needs `address` and `host_keys`")
        return self


class ServerConfig(Section):
    """The machine that PostgreSQL runs on, as a package of Debian or Ubuntu."""

    connection: Literal["ssh", "local"] = "ssh"
    """`ssh`, or `local` for this machine itself."""
    address: Address = "127.0.0.1"
    """DNS name or IP address; needed for `ssh`."""
    port: Port = 22
    """The SSH port."""
    user: str = "root"
    """Who logs in: `root`, or one who has sudo without a password."""
    host_keys: tuple[HostKey, ...] = ()
    """Its public host keys; the connection is refused for any other."""
    identity_file: str | None = None
    """The private key to log in with; without one the SSH agent's keys are tried."""
    jump: JumpConfig | None = None
    """The SSH server that the way leads through."""

    @property
    def name(self) -> str:
        """What it is called in every output."""
        return "database"

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.connection == "ssh" and "address" not in self.model_fields_set:
            raise ValueError("a server with `connection: ssh` needs an `address`")
        return self


class RepositoryConfig(Section):
    """Where pgBackRest keeps base backups and the write-ahead log."""

    kind: Literal["folder", "s3", "ssh"]
    """A folder of the database's machine (let it be another disk), an S3-compatible store, or
    another machine by SSH (SFTP; pgBackRest 2.46 or newer)."""
    path: AbsolutePath
    """The folder there; in a bucket the prefix. No other environment may share it."""
    bucket: str = ""
    """For `s3`: the bucket."""
    endpoint: str = ""
    """For `s3`: its URL, such as `https://s3.eu-west-1.amazonaws.com`; HTTPS only."""
    region: str = "us-east-1"
    """For `s3`: the region."""
    address: Address = "127.0.0.1"
    """For `ssh`: DNS name or IP address."""
    port: Port = 22
    """For `ssh`: the port."""
    user: str = "backup"
    """For `ssh`: who logs in."""
    host_keys: tuple[HostKey, ...] = ()
    """For `ssh`: its public host keys; any other is refused."""
    username: Variable | None = None
    """For `s3`: the secret that holds the access key's id."""
    key: Variable | None = None
    """The secret that holds the secret access key, or the private SSH key."""
    passphrase: Variable | None = None
    """The secret that encrypts all of it (AES-256); without one nothing is encrypted."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "s3":
            if not (self.bucket and self.username and self.key):
                raise ValueError("`kind: s3` needs `bucket`, `username` and `key`")
            if not re.fullmatch(r"https://[^/\s]+", self.endpoint):
                raise ValueError("`endpoint` must be such as https://s3.eu-west-1.amazonaws.com")
        there = self.host_keys and self.key and "address" in self.model_fields_set
        if self.kind == "ssh" and not there:
            raise ValueError("`kind: ssh` needs `address`, `host_keys` and `key`")
        return self


class PitrConfig(Section):
    """Point-in-time recovery of a PostgreSQL on a machine of one's own, by pgBackRest."""

    server: ServerConfig
    """The machine that PostgreSQL runs on."""
    repository: RepositoryConfig
    """Where its base backups and write-ahead log are kept."""
    archive_timeout: Annotated[WholeSeconds, Field(ge=1, le=86400)] = 60
    """What may be lost with the machine (the RPO): a segment is archived at the latest so long
    after the first change in it."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Full backups that are kept, with the write-ahead log from the oldest of them on."""
    processes: Annotated[int, Field(ge=1, le=999)] = 2
    """How many compress and copy at once."""
    port: Port = 5433
    """Where a restored cluster listens until it is the live one. The host that makes backups must
    reach it."""


class BackupsConfig(Section):
    """How the database is backed up."""

    policy: Literal["always", "when-migrating", "never"] = "when-migrating"
    """Before which deploys and rollbacks: all, those that change the schema, or none."""
    host: Name | None = None
    """The host where backups are made and kept; the first web host unless said otherwise."""
    directory: Annotated[str, AfterValidator(lambda path: path and absolute(path))] = ""
    """The folder for them there; `backups` in the deployer's own unless said otherwise."""
    secret: Variable = "DATABASE_URL"
    """The secret that holds the database's URL; without a value it is SQLite."""
    sqlite: AbsolutePath = "/data/amani.sqlite3"
    """Where the service keeps its SQLite database, in one of `volumes`."""
    recipients: tuple[Recipient, ...] = ()
    """Public age keys that archives are encrypted for. The private ones stay away from the host."""
    copies: tuple[CopyConfig, ...] = ()
    """Where every `db.backup` is copied to."""
    keep: KeepConfig = KeepConfig.model_construct()
    """Which ones `db.prune` keeps."""
    check_command: tuple[str, ...] = ("flask", "amani", "reconcile")
    """Run with the live image on a restored database, to see whether its content is right."""
    parallel_from: Bytes = 10_000_000_000
    """From which size on, such as `500MB` or `20GiB`, a PostgreSQL database is dumped by several
    jobs at once, each into files of its own: quicker where there are processors and tables enough,
    for twice the room. 0: always."""
    jobs: Annotated[int, Field(ge=1, le=64)] | None = None
    """How many dump or restore at once then. Unless said otherwise as many as that host has
    processors, at most 4, but one where it has two only or lacks the room. 1: never several."""
    timeout: Seconds = 3600.0
    """For one backup or restore."""
    textfile: AbsolutePath | None = None
    """The file for node_exporter's textfile collector; `metrics.prom` in the folder otherwise."""
    pitr: PitrConfig | None = None
    """Going back to any moment; without it, to the moments of backups only."""
