"""`invoke status`: what runs, what gets traffic, and where that is not what was recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.operations.session import open_session
from deploy.state.facts import SLOTS, ContainerFacts, Facts, HostFacts, Slot

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.state.journal import Record


@dataclass(frozen=True)
class Row:
    """One container. `traffic` is what the proxy does with it: live, standby (it runs, for a
    rollback), drain, idle, or `-` for roles without a proxy; `weight` its share while it is live;
    `since` in the engine's words."""

    host: str
    role: str
    slot: str
    version: str
    state: str
    traffic: str
    weight: int
    since: str


@dataclass(frozen=True)
class Status:
    """An environment at one moment. `drift` tells in words what is not as it should be."""

    environment: str
    url: str
    rows: tuple[Row, ...]
    drift: tuple[str, ...]
    unreachable: tuple[str, ...]
    recorded: Record | None


def status(name: str, events: Events, hosts: Sequence[str] = ()) -> Status:
    """Ask every host; one that does not answer is named, the others are told all the same."""
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        facts = session.facts()
    recorded = next((record for record in reversed(facts.history) if record.live), None)
    return Status(
        environment=name,
        url=environment.url,
        rows=tuple(row for host in facts.hosts.values() for row in _rows(host)),
        drift=tuple(drift(facts)),
        unreachable=tuple(facts.unreachable.values()),
        recorded=recorded,
    )


def drift(facts: Facts) -> Iterator[str]:
    """Differences between what is recorded, what the proxies do and what runs. Pure."""
    recorded = next((record for record in reversed(facts.history) if record.live), None)
    for host in facts.hosts.values():
        yield from (f"{host.name}: {text}" for text in _host_drift(host, recorded))


def _host_drift(host: HostFacts, recorded: Record | None) -> Iterator[str]:
    if "web" in host.roles:
        yield from _web_drift(host, recorded)
    for standing in host.containers:
        if standing.role == "one-off":
            yield f"{standing.name} was left behind"
        elif standing.role == "worker" and standing.running:
            yield from _release_drift(standing, recorded)
    if "worker" in host.roles and not any(
        found.running for found in host.containers if found.role == "worker"
    ):
        yield "no worker runs"


def _web_drift(host: HostFacts, recorded: Record | None) -> Iterator[str]:
    if not host.proxy.running:
        yield "the proxy does not run"
        return
    if host.proxy.maintenance:
        yield "maintenance is on: every request is answered 503"
    live = host.live_slot
    if len(host.proxy.ready_slots) > 1:
        yield "the proxy sends traffic to both slots"
    if live is None:
        yield "no slot is live"
        return
    if host.proxy.recorded != live:
        yield f"{live} is live, but a restart of the proxy would come back with the other slot"
    standing = host.container("web", live)
    server = host.proxy.servers.get(live)
    if standing is None or not standing.running:
        yield f"{live} is live, but its container does not run"
        return
    if server is not None and not server.up:
        yield f"the proxy finds {live} down ({server.check or 'no check yet'})"
    yield from _release_drift(standing, recorded)
    for slot in SLOTS:
        idle = host.container("web", slot)
        if slot != live and idle is not None and idle.running:
            yield from _standby_drift(host, slot, idle)


def _standby_drift(host: HostFacts, slot: Slot, found: ContainerFacts) -> Iterator[str]:
    server = host.proxy.servers.get(slot)
    if not host.was_live(found):
        yield f"{slot} runs ({found.version}) and never was live"
    elif server is not None and server.state == "drain" and not server.up:
        check = server.check or "no check yet"
        yield f"{slot} stands by ({found.version}), but the proxy finds it down ({check})"


def _release_drift(standing: ContainerFacts, recorded: Record | None) -> Iterator[str]:
    if recorded is None:
        yield f"{standing.name} runs {standing.version}, but no release is recorded"
    elif standing.digest != recorded.digest:
        yield f"{standing.name} runs {standing.version}, recorded is {recorded.version}"


def _rows(host: HostFacts) -> Iterator[Row]:
    for found in host.containers:
        if found.slot is None:
            continue
        server = host.proxy.servers.get(found.slot) if found.role == "web" else None
        stands_by = found.running and host.was_live(found)
        traffic = {
            "ready": "live",
            "drain": "standby" if stands_by else "drain",
            "maint": "standby" if stands_by else "idle",
        }
        yield Row(
            host=host.name,
            role=found.role,
            slot=found.slot,
            version=found.version,
            state=f"{found.state} ({found.health})" if found.health else found.state,
            traffic=traffic[server.state] if server else "-",
            weight=server.weight if server and server.state == "ready" else 0,
            since=found.started,
        )
