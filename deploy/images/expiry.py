"""Which images of a registry have expired. Pure, except for `sweep`.

The policy is the pipeline's (docs/CI_CD.md): semantic versions and moving tags stay forever, images
of a commit 90 days, those of staging 30 days. The age is that of the commit (the label
`org.opencontainers.image.created`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from deploy.images.registry import NotInRegistry, Registry

Kind = Literal["permanent", "staging", "commit", "unknown"]
AGES = {"staging": timedelta(days=30), "commit": timedelta(days=90)}
KEPT = 5
"""The newest images of each kind stay at any age: the live and the previous release may be as old.
"""

_VERSION = re.compile(r"v?\d+\.\d+\.\d+(-(?!dev\.)[0-9A-Za-z.-]+)?")
_COMMIT = re.compile(r"(prod|main|production)-[0-9a-f]{7,40}(-dirty)?|v?\d+\.\d+\.\d+-dev\..+")
_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True)
class Tagged:
    """An image with all its tags. `created` is None if its label is missing."""

    digest: str
    tags: tuple[str, ...]
    created: datetime | None


def classify(tag: str) -> Kind:
    """The kind of a tag. An unknown tag is never removed."""
    if tag == "latest" or tag.endswith("-latest") or _VERSION.fullmatch(tag):
        return "permanent"
    if tag.startswith("staging-"):
        return "staging"
    return "commit" if _COMMIT.fullmatch(tag) else "unknown"


def select_expired(images: Iterable[Tagged], now: datetime, keep: int = KEPT) -> list[Tagged]:
    """The images to remove, oldest first.

    An image is removed as a whole: one tag that must stay keeps it.
    """
    gone = []
    for kind, age in AGES.items():
        ours = [image for image in images if image.created and _kind(image) == kind]
        ours.sort(key=lambda image: image.created or now)
        gone += [
            image
            for image in ours[: max(0, len(ours) - keep)]
            if image.created and now - image.created > age
        ]
    return sorted(gone, key=lambda image: image.created or now)


def _kind(image: Tagged) -> Kind:
    """The kind of tag that keeps an image longest."""
    kinds = {classify(tag) for tag in image.tags}
    order: Sequence[Kind] = ("permanent", "unknown", "commit", "staging")
    return next(kind for kind in order if kind in kinds)


def sweep(
    registry: Registry,
    now: datetime,
    *,
    keep: int = KEPT,
    announce: Callable[[Tagged], None],
    remove: Callable[[str], None] | None,
) -> None:
    """Find the expired images of a repository, report each, and `remove` it by its digest. Without
    `remove`, they are only reported.

    Raises `RegistryError` if the registry does not answer or refuses to delete.
    """
    tags: dict[str, list[str]] = {}
    created: dict[str, datetime | None] = {}
    for tag in registry.list_tags():
        try:
            found = registry.resolve(tag)
        except NotInRegistry:  # deleted by another process
            continue
        tags.setdefault(found.digest, []).append(tag)
        created[found.digest] = _read(found.labels.get(_CREATED, ""))
    images = [Tagged(digest, tuple(names), created[digest]) for digest, names in tags.items()]
    for image in select_expired(images, now, keep):
        announce(image)
        if remove is not None:
            remove(image.digest)


def _read(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
