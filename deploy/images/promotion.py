"""An image under further names and in further registries, byte for byte: its digest stays."""

from __future__ import annotations

from collections.abc import Iterable

from deploy.images.registry import Registry


def promote(
    source: Registry, digest: str, targets: Iterable[Registry], tags: Iterable[str]
) -> None:
    """Give what `source` holds under `digest` the `tags` in each of the `targets`.

    Where a target is another repository, what it lacks is copied first. Names come last, so that a
    tag never names what is not wholly there. Raises `RegistryError` where a registry refuses.
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
