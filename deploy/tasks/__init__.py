"""The surface: Invoke tasks, each a few typed lines. Heavy imports stand inside the functions,
so that `invoke --list` and completion stay quick."""

from __future__ import annotations

from invoke.collection import Collection

from deploy.tasks import image, quality

namespace = Collection(
    quality.lint,
    quality.format_code,
    quality.lock_requirements,
    image=Collection(image.bases),
)
