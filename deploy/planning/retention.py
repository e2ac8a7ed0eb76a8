"""The images, containers and secrets that no retention rule keeps. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from deploy.state import containers
from deploy.state.facts import ContainerFacts, HostFacts

if TYPE_CHECKING:
    from deploy.environment.model import Environment


def find_prunable(
    environment: Environment, facts: HostFacts, wanted: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of the images that exceed the retention, and of the containers that are left over.

    A container is left over if it is a one-off that has ended, or if its release, in a slot, was
    never recorded as live: a deploy failed or was killed. The prune follows the swap, so none of
    them serves.

    Kept are the wanted digest, the last `retention.releases` distinct digests that were live on
    the host, and every image that a container uses, of this environment or another. Images that
    are no release of this environment's repository are ignored.
    """
    keep = {wanted}
    for record in reversed(facts.records):
        if len(keep) >= environment.retention.releases:
            break
        if record.live:
            keep.add(record.digest)
    lived = {record.digest for record in facts.records if record.live} | {wanted}
    leftovers = tuple(
        found
        for found in facts.containers
        if (found.role == "one-off" and not _at_work(found))
        or (found.slot is not None and found.digest not in lived)
    )
    keep |= {found.digest for found in facts.containers if found not in leftovers}
    keep |= facts.used_elsewhere
    images = tuple(
        sorted(
            image.id
            for image in facts.images
            if containers.SCHEMA_HEAD in image.labels
            and _ours(environment, image.digests, image.tags)
            and not keep & {image.id, *(d.rpartition("@")[2] for d in image.digests)}
        )
    )
    return images, tuple(sorted(found.id for found in leftovers))


def find_unneeded_secrets(
    facts: HostFacts, replaced: Collection[ContainerFacts]
) -> tuple[str, ...]:
    """The generations of secrets that no container needs once those in `replaced` are removed.

    These are earlier values, and generations that a killed run half-delivered.
    """
    stay = (found for found in facts.containers if found not in replaced)
    needed = {found.labels.get(containers.SECRETS) for found in stay} | {facts.secrets}
    return tuple(sorted(facts.generations - needed))


def _at_work(found: ContainerFacts) -> bool:
    """Whether an operator's `invoke exec` runs in it."""
    return found.running and found.labels.get(containers.ONE_OFF) == "exec"


def _ours(environment: Environment, digests: tuple[str, ...], tags: tuple[str, ...]) -> bool:
    repository = environment.image.repository
    names = [name.rpartition("@")[0] for name in digests]
    names += [name.rpartition(":")[0] for name in tags]
    return repository in names
