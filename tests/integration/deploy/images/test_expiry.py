"""Deletion of expired images from a registry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploy.events import Events
from deploy.images import build
from deploy.images.expiry import Tagged, sweep
from deploy.images.registry import NotInRegistry, Registry

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.engine
def test_expired_images_are_deleted_from_a_registry_except_on_a_dry_run(registry, make_image):
    repository = f"{registry}/team/old"
    old, new = (NOW - timedelta(days=days) for days in (120, 1))
    for tag, created in (("prod-0123abc", old), ("prod-1123abc", new), ("v1.0.0", old)):
        labels = {"org.opencontainers.image.created": f"{created:%Y-%m-%dT%H:%M:%SZ}", "tag": tag}
        build.push([make_image(f"{repository}:{tag}", labels)], events=Events())
    told: list[str] = []

    def tell(found: Tagged) -> None:
        told.extend(found.tags)

    with Registry(repository, insecure=True) as client:
        sweep(client, NOW, keep=1, announce=tell, remove=None)
        assert client.resolve("prod-0123abc")
        sweep(client, NOW, keep=1, announce=tell, remove=client.delete)
        with pytest.raises(NotInRegistry):
            client.resolve("prod-0123abc")
        assert client.resolve("prod-1123abc") and client.resolve("v1.0.0")
        sweep(client, NOW, keep=1, announce=tell, remove=client.delete)
    assert told == ["prod-0123abc", "prod-0123abc"]
