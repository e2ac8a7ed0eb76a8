"""The containers of an environment: names, labels and specifications. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

from deploy.hosts.engine import ContainerSpec, Mount
from deploy.secrets import delivery
from deploy.state.facts import Role, Slot

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.release import ImageRef, Release

ENVIRONMENT = "amani.environment"
ROLE = "amani.role"
SLOT = "amani.slot"
VERSION = "amani.version"
DIGEST = "amani.digest"
CONFIG = "amani.config"
SECRETS = "amani.secrets"
ONE_OFF = "amani.one-off"
SCHEMA_HEAD = "amani.schema.head"


def slot_name(environment: Environment, role: Role, slot: Slot) -> str:
    """The container's name in a role's slot."""
    return f"amani-{environment.name}-{role}-{slot}"


def network_name(environment: Environment) -> str:
    """The name of the bridge network that proxy and slots share."""
    return f"amani-{environment.name}"


def volume_name(environment: Environment, name: str) -> str:
    """The name of one of the environment's volumes in the engine."""
    return f"amani-{environment.name}-{name}"


def make_slot_container(
    environment: Environment, role: Role, slot: Slot, release: Release, generation: str
) -> ContainerSpec:
    """The long-running container of a release in a role's slot.

    Its label `amani.config` is a hash of everything that matters to the process: two containers
    with equal hashes are interchangeable, whichever version each was made for.
    """
    config = environment.role(role)
    bare = _base(environment, role, release.image, generation)
    spec = dataclasses.replace(
        bare,
        name=slot_name(environment, role, slot),
        command=config.command,
        address=environment.address_of(slot) if role == "web" else "",
        memory=config.resources.memory,
        cpus=config.resources.cpus,
        pids=config.resources.pids,
        stop_timeout=config.stop_timeout,
        healthcheck=config.healthcheck,
    )
    labels = {
        **spec.labels,
        SLOT: slot,
        VERSION: str(release.version),
        CONFIG: hash_config(spec),
    }
    return dataclasses.replace(spec, labels=labels)


def make_one_off_container(
    environment: Environment,
    image: ImageRef,
    generation: str,
    *,
    purpose: str,
    run_id: str,
    command: tuple[str, ...],
) -> ContainerSpec:
    """A container that runs one command with the settings and secrets of the web role."""
    bare = _base(environment, "web", image, generation)
    return dataclasses.replace(
        bare,
        name=f"amani-{environment.name}-{purpose}-{run_id}",
        command=command,
        restart="no",
        stop_timeout=environment.timeouts.stop,
        healthcheck=False,
        labels={**bare.labels, ROLE: "one-off", ONE_OFF: purpose},
    )


def _base(environment: Environment, role: Role, image: ImageRef, generation: str) -> ContainerSpec:
    config = environment.role(role)
    mounts = [
        Mount(volume_name(environment, name), target, read_only=False)
        for name, target in sorted(environment.volumes.items())
    ]
    if generation:
        mounts.append(Mount(delivery.volume_name(environment, generation), delivery.MOUNT_POINT))
    return ContainerSpec(
        name="",
        image=image.reference,
        environment={**environment.settings, **config.environment},
        labels={
            ENVIRONMENT: environment.name,
            ROLE: role,
            DIGEST: image.digest,
            SECRETS: generation,
        },
        mounts=tuple(mounts),
        tmpfs={"/tmp": "rw,nosuid,nodev,noexec,size=64m,mode=1777"},  # nosec B108
        network=network_name(environment),
        read_only=environment.hardening.read_only,
        drop_capabilities=environment.hardening.drop_capabilities,
        no_new_privileges=environment.hardening.no_new_privileges,
    )


def hash_config(spec: ContainerSpec) -> str:
    """A hash of a specification without its name, address and labels."""
    placeless = dataclasses.replace(spec, name="", address="", labels={})
    values = json.dumps(dataclasses.asdict(placeless), sort_keys=True, default=str)
    return hashlib.sha256(values.encode()).hexdigest()[:16]
