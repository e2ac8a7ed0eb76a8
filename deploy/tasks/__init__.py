"""The command line of the deployer: Invoke tasks, which call `deploy.operations`.

Slow imports are inside the functions, so that `invoke --list` and completion are fast.
"""

from __future__ import annotations

from invoke.collection import Collection

from deploy.tasks import (
    database,
    environments,
    host,
    image,
    local,
    lock,
    maintenance,
    pitr,
    release,
    secrets,
    smoke,
)


def collect_tasks() -> Collection:
    """Return a new collection with all tasks of the deployer."""
    databases = Collection.from_module(database)
    databases.add_collection(Collection.from_module(pitr))
    return Collection(
        local.up,
        release.deploy,
        release.rollback,
        release.status,
        release.releases,
        release.logs,
        release.run_command,
        smoke.smoke,
        smoke.metrics,
        release.remove,
        db=databases,
        env=Collection.from_module(environments),
        host=Collection.from_module(host),
        image=Collection(image.bases, image.build, image.retention),
        lock=Collection.from_module(lock),
        maintenance=Collection.from_module(maintenance),
        secrets=Collection.from_module(secrets),
    )
