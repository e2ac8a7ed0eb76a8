"""Which images, containers and secrets a host need not keep. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from deploy.state import containers
from deploy.state.facts import ContainerFacts, HostFacts

if TYPE_CHECKING:
    from deploy.environment.model import Environment


def prunable(
    environment: Environment, facts: HostFacts, wanted: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Images past the retention, and containers that nobody waits for any more.

    The latter are left-over one-offs, and what stands in a slot without ever having been recorded
    as live: a release that failed, or whose deploy was killed. Tidying comes after the swap, so
    nothing here serves any more.

    Kept are: the wanted digest, the last `retention.releases` distinct digests that were live
    here, and whatever a container still stands on, ours or another environment's. Images that are
    no release of this environment's repository are none of our business.
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


def unneeded_secrets(facts: HostFacts, replaced: Collection[ContainerFacts]) -> tuple[str, ...]:
    """Generations of secrets that nothing needs once the containers in `replaced` are gone: those
    of earlier values, and what a kill left half-delivered.
    """
    stay = (found for found in facts.containers if found not in replaced)
    needed = {found.labels.get(containers.SECRETS) for found in stay} | {facts.secrets}
    return tuple(sorted(facts.generations - needed))


def _at_work(found: ContainerFacts) -> bool:
    """Whether somebody's `invoke exec` is under way in it."""
    return found.running and found.labels.get(containers.ONE_OFF) == "exec"


def _ours(environment: Environment, digests: tuple[str, ...], tags: tuple[str, ...]) -> bool:
    repository = environment.image.repository
    names = [name.rpartition("@")[0] for name in digests]
    names += [name.rpartition(":")[0] for name in tags]
    return repository in names
