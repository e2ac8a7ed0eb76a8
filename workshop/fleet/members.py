"""The containers of a fleet as values; equal values give equal containers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workshop.fleet.credentials import FleetCredentials
from workshop.fleet.database_image import FILES, database_image
from workshop.fleet.host_image import host_image
from workshop.fleet.layout import LABEL, REGISTRY_PORT, Layout, engine_settings

REGISTRY_IMAGE = "registry:2"
DATABASE_IMAGE = "postgres:17-trixie"
DATABASE_USER = "amani"
RENEW_PASSWORD = "/etc/renew-password.sql"  # nosec B105
"""The script that sets the current password in an existing database."""
DEPLOY_UID = 1000
ROLE = FILES / "role.sql"
"""Creates the service's user and database if they are missing, and sets the password."""
DATABASE_HOST = 0
"""The number of the database host among the host keys."""
CONFIG = f"{LABEL}.config"
MEMBER = f"{LABEL}.member"


@dataclass(frozen=True)
class PlacedFile:
    """A file that is copied into a container before its start: in no layer, variable or label."""

    content: str
    mode: int = 0o600
    uid: int = 0


@dataclass(frozen=True)
class Member:
    """The definition of a container. `ports` maps a port to an address and port of this machine."""

    role: str
    image: str
    address: str
    data: str
    """The mount point of its volume."""
    files: Mapping[str, PlacedFile] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    nests: bool = False
    """Whether it runs its own engine."""

    def archive(self) -> bytes:
        """Its files as a tar archive for `/`; their folders are in the image."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for path, file in self.files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                content = file.content.encode()
                entry.size, entry.mode = len(content), file.mode
                entry.uid = entry.gid = file.uid
                archive.addfile(entry, io.BytesIO(content))
        return made.getvalue()


def registry(layout: Layout) -> Member:
    """The fleet's registry: plain HTTP, without login, on the fleet's network and this machine."""
    host = layout.registry.partition(":")[0]
    return Member(
        role="registry",
        image=REGISTRY_IMAGE,
        address=str(layout.registry_address),
        data="/var/lib/registry",
        ports={REGISTRY_PORT: (host, REGISTRY_PORT)},
    )


def database(layout: Layout, credentials: FleetCredentials) -> Member:
    """The fleet's PostgreSQL server in a container."""
    password = "/etc/postgres-password"  # nosec B105
    renew = f"\\set password `cat {password}`\nALTER USER {DATABASE_USER} PASSWORD :'password';\n"
    return Member(
        role="postgres",
        image=DATABASE_IMAGE,
        address=str(layout.database),
        data="/var/lib/postgresql/data",
        files={
            password: PlacedFile(credentials.database_password(), 0o400),
            RENEW_PASSWORD: PlacedFile(renew, 0o644),
        },
        environment={"POSTGRES_USER": DATABASE_USER, "POSTGRES_PASSWORD_FILE": password},
    )


def database_host(layout: Layout, credentials: FleetCredentials) -> Member:
    """A host with PostgreSQL as a package. The fleet's key logs in as `root` and as `deploy`, who
    has sudo."""
    own, visitor = credentials.host_key(DATABASE_HOST), credentials.identity().public + "\n"
    password = credentials.database_password()
    role = f"\\set name {DATABASE_USER}\n\\set password '{password}'\n{ROLE.read_text()}"
    return Member(
        role="database",
        image=database_image(),
        address=str(layout.database_host),
        data="/var/lib/postgresql",
        files={
            "/etc/practice-role.sql": PlacedFile(role),
            "/etc/ssh/ssh_host_ed25519_key": PlacedFile(own.private),
            "/etc/ssh/ssh_host_ed25519_key.pub": PlacedFile(own.public + "\n", 0o644),
            "/root/.ssh/authorized_keys": PlacedFile(visitor),
            "/home/deploy/.ssh/authorized_keys": PlacedFile(visitor, uid=DEPLOY_UID),
        },
    )


def host(number: int, layout: Layout, credentials: FleetCredentials) -> Member:
    """Practice host `number`. The fleet's key logs in as `root` and as `deploy`."""
    own, visitor = credentials.host_key(number), credentials.identity().public + "\n"
    settings = json.dumps(engine_settings(number), indent=2)
    return Member(
        role=f"host{number}",
        image=host_image(),
        address=str(layout.host(number)),
        data="/var/lib/docker",
        files={
            "/etc/docker/daemon.json": PlacedFile(settings + "\n", 0o644),
            "/etc/ssh/ssh_host_ed25519_key": PlacedFile(own.private),
            "/etc/ssh/ssh_host_ed25519_key.pub": PlacedFile(own.public + "\n", 0o644),
            "/root/.ssh/authorized_keys": PlacedFile(visitor),
            "/home/deploy/.ssh/authorized_keys": PlacedFile(visitor, uid=DEPLOY_UID),
        },
        environment={
            "REGISTRY": layout.registry,
            "REGISTRY_ADDRESS": str(layout.registry_address),
        },
        nests=True,
    )


def container_body(
    member: Member, layout: Layout, labels: Mapping[str, str], stands_on: str
) -> dict[str, Any]:
    """The body of the engine's `/containers/create`.

    The label `CONFIG` is a hash of the body, the files, and `stands_on`: the current ids of image
    and network.
    """
    settings: dict[str, Any] = {
        "Binds": [f"{layout.container(member.role)}:{member.data}"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
        "NetworkMode": layout.network,
        "PortBindings": {
            f"{port}/tcp": [{"HostIp": address, "HostPort": str(outside)}]
            for port, (address, outside) in member.ports.items()
        },
    }
    if member.nests:
        settings |= NESTING
    body = {
        "Image": member.image,
        "Hostname": member.role,
        "Env": [f"{key}={value}" for key, value in member.environment.items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in member.ports},
        "HostConfig": settings,
        "NetworkingConfig": {
            "EndpointsConfig": {layout.network: {"IPAMConfig": {"IPv4Address": member.address}}}
        },
    }
    made_from = json.dumps([stands_on, body, {p: asdict(f) for p, f in member.files.items()}])
    config = hashlib.sha256(made_from.encode()).hexdigest()[:32]
    return body | {"Labels": {**labels, MEMBER: member.role, CONFIG: config}}


# The minimal privileges of an engine inside a container: SYS_ADMIN for mounts and namespaces,
# NET_ADMIN for bridges and rules, SYS_PTRACE to enter (exec) containers that do not run as root,
# and no mask over /proc/sys, which the engine writes. With its own cgroup namespace it limits its
# containers inside its own share, under cgroup v1 and v2. With an empty /run it finds no files of
# an earlier run.
NESTING: dict[str, Any] = {
    "CapAdd": ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"],
    "CgroupnsMode": "private",
    "MaskedPaths": [],
    "ReadonlyPaths": [],
    "SecurityOpt": ["apparmor=unconfined", "seccomp=unconfined"],
    "Tmpfs": {"/run": "exec,mode=755"},
}
