"""The surface: Invoke tasks, each a few typed lines. Heavy imports stand inside the functions,
so that `invoke --list` and completion stay quick."""

from __future__ import annotations

from invoke.collection import Collection

from deploy.tasks import (
    bench,
    ci,
    database,
    environments,
    fleet,
    host,
    image,
    local,
    lock,
    maintenance,
    pitr,
    quality,
    release,
    secrets,
    security,
    smoke,
)

_database = Collection.from_module(database)
_database.add_collection(Collection.from_module(pitr))

namespace = Collection(
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
    quality.lint,
    quality.test,
    quality.format_code,
    quality.lock_requirements,
    bench=Collection.from_module(bench),
    ci=Collection.from_module(ci),
    db=_database,
    env=Collection.from_module(environments),
    fleet=Collection.from_module(fleet),
    host=Collection.from_module(host),
    image=Collection(image.bases, image.build, image.retention),
    lock=Collection.from_module(lock),
    maintenance=Collection.from_module(maintenance),
    secrets=Collection.from_module(secrets),
    security=Collection.from_module(security),
)
