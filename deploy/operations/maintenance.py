"""Requests that touch the proxies only, or take an environment down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy import proxy, secrets
from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.observe import survey
from deploy.operations.session import Session, open_session
from deploy.state import containers, lock

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.hosts.host import Host


def set_maintenance(name: str, events: Events, *, on: bool, hosts: Sequence[str] = ()) -> None:
    """Answer 503 with Retry-After to everyone, or serve again; the slots run on untouched."""
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        session.require_all()
        web = [session.hosts[config.name] for config in environment.hosts_with("web")]

        def switch(host: Host) -> None:
            if not proxy.facts(host, environment)[0].running:
                raise UsageError(
                    f"{host.name}: no proxy of {name} runs there",
                    hint=f"`invoke deploy --env={name}` starts it",
                    host=host.name,
                )
            proxy.set_maintenance(host, environment, on)
            events.emit("note", f"maintenance {'on' if on else 'off'}", host=host.name)

        _raise_first(survey.side_by_side(web, switch))


def remove(name: str, events: Events, *, volumes: bool = False) -> None:
    """Remove an environment's containers, networks, secrets and files from its hosts.

    Named volumes stay unless `volumes` is set: they may hold the database.
    """
    environment = load_environment(name)
    with open_session(environment, events) as session:
        session.require_all()
        if session.lock_host is None:
            raise UsageError(f"{name}: the host that holds the lock is not open")
        holder = lock.Holder.here("remove", "remove")
        with lock.hold(session.lock_host, environment.folder, holder):
            _raise_first(
                survey.side_by_side(
                    list(session.hosts.values()),
                    lambda host: _remove_from(session, host, volumes=volumes),
                )
            )


def _remove_from(session: Session, host: Host, *, volumes: bool) -> None:
    environment, engine = session.environment, host.engine
    for found in engine.containers({containers.ENVIRONMENT: environment.name}):
        engine.remove(found["Id"])
    engine.remove_network(containers.network_name(environment))
    secrets.prune(host, environment, set())
    if volumes:
        for name in environment.volumes:
            engine.remove_volume(containers.volume_name(environment, name))
    kept = "" if volumes else "; its volumes stay"
    paths = [f"{environment.folder}/{part}" for part in ("proxy", "secrets.json", "journal.jsonl")]
    host.run(("rm", "-rf", "--", *paths))
    session.events.emit("note", f"{environment.name} removed{kept}", host=host.name)


def _raise_first(results: dict[str, None | DeployError]) -> None:
    for result in results.values():
        if isinstance(result, DeployError):
            raise result
