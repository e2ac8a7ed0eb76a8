"""Secrets on a host: one Docker volume for each generation, mounted read-only at `/run/secrets`.

A generation never changes: a release keeps the generation that it was started with, and so does a
rollback. The values travel through the Engine API into a volume, by way of a container that is
created and never started. So they are in no argument list and no `docker inspect` output, and the
deploy user needs no root rights. `<folder>/secrets.json` (0600) identifies the generations by a
salted scrypt digest.
"""

from __future__ import annotations

import binascii
import io
import json
import secrets as entropy
import tarfile
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploy.errors import EngineError
from deploy.hosts.engine import ContainerSpec, Mount
from deploy.secrets.secret import Secrets

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host

MOUNT_POINT = "/run/secrets"
SERVICE_UID = 10001
"""The user of the service in every image that keeps the contract."""


@dataclass
class _Generation:
    salt: str
    digest: str
    complete: bool = False


@dataclass
class _Register:
    """`secrets.json` of a host: its generations, oldest first."""

    generations: dict[str, _Generation] = field(default_factory=dict)

    @classmethod
    def read(cls, host: Host, environment: Environment) -> _Register:
        # An unreadable file counts as missing: a new generation is delivered.
        try:
            content: Any = json.loads(host.read_file(_path(environment)) or b"{}")
            return cls({k: _Generation(**v) for k, v in content["generations"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def write(self, host: Host, environment: Environment) -> None:
        content = {"generations": {name: vars(made) for name, made in self.generations.items()}}
        host.write_file(_path(environment), json.dumps(content, indent=1).encode(), mode=0o600)

    def matching(self, wanted: Secrets) -> Iterator[str]:
        for name, made in reversed(self.generations.items()):
            if made.complete and wanted.digest(binascii.unhexlify(made.salt)) == made.digest:
                yield name


def volume_name(environment: Environment, generation: str) -> str:
    """The Docker volume of a generation."""
    return f"amani-{environment.name}-secrets-{generation}"


def find_generation(host: Host, environment: Environment, wanted: Secrets) -> str | None:
    """The newest generation on the host with exactly the wanted values, or None."""
    return list_generations(host, environment, wanted)[0]


def list_generations(
    host: Host, environment: Environment, wanted: Secrets
) -> tuple[str | None, frozenset[str]]:
    """`find_generation`, and every generation on the host, including incomplete ones."""
    register = _Register.read(host, environment)
    current = next(
        (
            name
            for name in register.matching(wanted)
            if host.engine.volume(volume_name(environment, name)) is not None
        ),
        None,
    )
    return current, frozenset(register.generations)


def deliver(
    host: Host,
    environment: Environment,
    wanted: Secrets,
    *,
    image: str,
    uid: int = SERVICE_UID,
) -> str:
    """Deliver the wanted values to the host if it lacks them. Returns their generation.

    `image` is any image on the host: a container of it is created and never started. Files belong
    to `uid` and have mode 0400. If the process is killed, at most a volume remains that the
    register names and `prune` removes.
    """
    present = find_generation(host, environment, wanted)
    if present is not None:
        return present
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{entropy.token_hex(3)}"
    salt = entropy.token_bytes(16)
    register = _Register.read(host, environment)
    register.generations[name] = _Generation(salt.hex(), wanted.digest(salt))
    register.write(host, environment)
    with _carrier(host, environment, name, image) as container:
        host.engine.copy_into(container, MOUNT_POINT, _archive(wanted, uid))
    register.generations[name].complete = True
    register.write(host, environment)
    return name


def prune(host: Host, environment: Environment, keep: Set[str]) -> None:
    """Remove the generations that are not in `keep` and that no container needs."""
    register = _Register.read(host, environment)
    for name in [name for name in register.generations if name not in keep]:
        try:
            host.engine.remove_volume(volume_name(environment, name))
        except EngineError as error:
            if error.status == 409:
                continue
            raise
        del register.generations[name]
    register.write(host, environment)


def _path(environment: Environment) -> str:
    return f"{environment.folder}/secrets.json"


@contextmanager
def _carrier(host: Host, environment: Environment, generation: str, image: str) -> Iterator[str]:
    volume = volume_name(environment, generation)
    container = host.engine.create(
        ContainerSpec(
            name=volume,
            image=image,
            command=("true",),
            labels={
                "amani.environment": environment.name,
                "amani.role": "one-off",
                "amani.one-off": "secrets",
                "amani.secrets": generation,
            },
            mounts=(Mount(volume, MOUNT_POINT, read_only=False),),
            restart="no",
            healthcheck=False,
        )
    )
    try:
        yield container
    finally:
        host.engine.remove(container)


def _archive(wanted: Secrets, uid: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, secret in sorted(wanted.values.items()):
            content = secret.reveal().encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, uid, uid
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
