"""`invoke remove`: remove an environment from its hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy import secrets
from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.operations.host_session import HostSession, open_session
from deploy.state import containers, lock

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.hosts.host import Host


def remove_environment(name: str, events: Events, *, volumes: bool = False) -> None:
    """Remove an environment's containers, networks, secrets and files from its hosts.

    Keeps its named volumes, which may hold the database, unless `volumes` is true.
    """
    environment = load_environment(name)
    with open_session(environment, events) as session:
        session.require_all()
        if session.lock_host is None:
            raise UsageError(f"the host that holds the lock of {name} is not among its open hosts")
        holder = lock.Holder.here("remove", "remove")
        with lock.hold(session.lock_host, environment.folder, holder):
            session.run_on(
                list(session.hosts.values()),
                lambda host: _remove_from(session, host, volumes=volumes),
            )


def _remove_from(session: HostSession, host: Host, *, volumes: bool) -> None:
    environment, engine = session.environment, host.engine
    for found in engine.containers({containers.ENVIRONMENT: environment.name}):
        engine.remove(found["Id"])
    engine.remove_network(containers.network_name(environment))
    secrets.prune(host, environment, set())
    if volumes:
        for name in environment.volumes:
            engine.remove_volume(containers.volume_name(environment, name))
    kept = "" if volumes else "; its volumes were kept"
    paths = [f"{environment.folder}/{part}" for part in ("proxy", "secrets.json", "journal.jsonl")]
    host.run(("rm", "-rf", "--", *paths))
    session.events.emit("note", f"{environment.name} was removed{kept}", host=host.name)
