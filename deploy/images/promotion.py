"""Copies of an image under other tags and in other registries, with the same digest."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.images.registry import Registry


def promote(
    source: Registry, digest: str, targets: Iterable[Registry], tags: Iterable[str]
) -> None:
    """Add `tags` to the image `digest` of `source` in each of `targets`.

    A target in another repository first gets the blobs that it lacks. Tags come last, so that a tag
    never names an incomplete image. Raises `RegistryError` if a registry refuses.
    """
    names = tuple(tags)
    manifest = source.manifest(digest)
    for target in targets:
        if target.repository != source.repository:
            _copy(source, digest, target)
        for tag in names:
            target.put_manifest(tag, manifest)


def _copy(source: Registry, digest: str, target: Registry) -> None:
    manifest = source.manifest(digest)
    for child in manifest.children:
        _copy(source, child, target)
    for blob, size in manifest.blobs:
        if not target.has_blob(blob):
            target.take_blob(blob, size, source)
    target.put_manifest(digest, manifest)
