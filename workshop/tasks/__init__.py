"""The Invoke tasks for benchmarks, practice hosts, CI jobs and the checkout."""

from __future__ import annotations

from invoke.collection import Collection

from workshop.tasks import bench, ci, fleet, quality, security


def add_tasks(namespace: Collection) -> Collection:
    """Add the workshop's tasks to `namespace` and return it."""
    for task in (quality.lint, quality.test, quality.format_code, quality.lock_requirements):
        namespace.add_task(task)
    for name, module in {"bench": bench, "ci": ci, "fleet": fleet, "security": security}.items():
        namespace.add_collection(Collection.from_module(module), name=name)
    return namespace
