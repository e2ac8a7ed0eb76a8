"""`invoke metrics`: deploys, certificates and the archive as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.observe.metrics import render
from deploy.operations.history import read_history
from deploy.operations.recovery_archive import collect_cluster_facts
from deploy.operations.smoke import public_routes

if TYPE_CHECKING:
    from deploy.events import Events


def collect_metrics(name: str, events: Events) -> str:
    """Return the metrics of an environment's deploys, certificates and archive.

    The result is in the Prometheus text format.
    """
    environment = load_environment(name)
    path, timeout = environment.smoke.version_path, environment.smoke.timeout
    answers = {
        place: route.get(path, timeout=timeout) for place, route, _ in public_routes(environment)
    }
    archived = environment.backups.pitr is not None
    archive = collect_cluster_facts(name, events) if archived else None
    return render(name, read_history(name, events), answers, archived=archived, archive=archive)
