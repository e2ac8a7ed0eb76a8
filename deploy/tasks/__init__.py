"""The surface: Invoke tasks, each a few typed lines. Heavy imports stand inside the functions,
so that `invoke --list` and completion stay quick."""

from __future__ import annotations

from invoke.collection import Collection

from deploy.tasks import fleet, image, quality

namespace = Collection(
    quality.lint,
    quality.test,
    quality.format_code,
    quality.lock_requirements,
    fleet=Collection.from_module(fleet),
    image=Collection(image.bases),
)
