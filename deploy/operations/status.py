"""`invoke status`: the containers, their traffic, and the drift from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.operations.host_session import open_session
from deploy.state.facts import SLOTS, ContainerFacts, Facts, HostFacts, Slot

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.state.journal import Record


@dataclass(frozen=True)
class StatusRow:
    """The status of one container.

    `traffic` is `live`, `standby` (it runs, for a rollback), `drain`, `idle`, or `-` for a role
    without a proxy. `weight` is the share of the traffic, 0 if it is not live. `since` is a text
    of the Docker Engine.
    """

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
    """The status of an environment at one moment.

    `drift` has a text for each difference from the journal, `unreachable` one for each unreachable
    host. `recorded` is the record of the live release.
    """

    environment: str
    url: str
    rows: tuple[StatusRow, ...]
    drift: tuple[str, ...]
    unreachable: tuple[str, ...]
    recorded: Record | None


def read_status(name: str, events: Events, hosts: Sequence[str] = ()) -> Status:
    """Observe every host of an environment; an unreachable one does not raise."""
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        facts = session.facts()
    recorded = next((record for record in reversed(facts.history) if record.live), None)
    return Status(
        environment=name,
        url=environment.url,
        rows=tuple(row for host in facts.hosts.values() for row in _rows(host)),
        drift=tuple(find_drift(facts)),
        unreachable=tuple(facts.unreachable.values()),
        recorded=recorded,
    )


def find_drift(facts: Facts) -> Iterator[str]:
    """Yield a text for each difference of the journal, the proxies and the containers. Pure."""
    recorded = next((record for record in reversed(facts.history) if record.live), None)
    for host in facts.hosts.values():
        yield from (f"{host.name}: {text}" for text in _host_drift(host, recorded))


def _host_drift(host: HostFacts, recorded: Record | None) -> Iterator[str]:
    if "web" in host.roles:
        yield from _web_drift(host, recorded)
    for found in host.containers:
        if found.role == "one-off":
            yield f"the one-off container {found.name} was not removed"
        elif found.role == "worker" and found.running:
            yield from _release_drift(found, recorded)
    if "worker" in host.roles and not any(
        found.running for found in host.containers if found.role == "worker"
    ):
        yield "no worker runs"


def _web_drift(host: HostFacts, recorded: Record | None) -> Iterator[str]:
    if not host.proxy.running:
        yield "the proxy does not run"
        return
    if host.proxy.maintenance:
        yield "maintenance is on: the proxy answers every request with 503"
    live = host.live_slot
    if len(host.proxy.ready_slots) > 1:
        yield "the proxy sends traffic to both slots"
    if live is None:
        yield "no slot is live"
        return
    if host.proxy.recorded != live:
        yield f"{live} is live, but the proxy would start with the other slot after a restart"
    found = host.container("web", live)
    server = host.proxy.servers.get(live)
    if found is None or not found.running:
        yield f"{live} is live, but its container does not run"
        return
    if server is not None and not server.up:
        yield f"{live} is live, but down for the proxy ({server.check or 'no check yet'})"
    yield from _release_drift(found, recorded)
    for slot in SLOTS:
        idle = host.container("web", slot)
        if slot != live and idle is not None and idle.running:
            yield from _standby_drift(host, slot, idle)


def _standby_drift(host: HostFacts, slot: Slot, found: ContainerFacts) -> Iterator[str]:
    server = host.proxy.servers.get(slot)
    if not host.was_live(found):
        yield f"{slot} runs {found.version}, which was never live"
    elif server is not None and server.state == "drain" and not server.up:
        check = server.check or "no check yet"
        yield f"{slot} is the standby ({found.version}), but down for the proxy ({check})"


def _release_drift(found: ContainerFacts, recorded: Record | None) -> Iterator[str]:
    if recorded is None:
        yield f"{found.name} runs {found.version}, but the journal has no live release"
    elif found.digest != recorded.digest:
        yield (
            f"{found.name} runs {found.version}, but the journal has {recorded.version}"
            " as the live release"
        )


def _rows(host: HostFacts) -> Iterator[StatusRow]:
    for found in host.containers:
        if found.slot is None:
            continue
        server = host.proxy.servers.get(found.slot) if found.role == "web" else None
        standby = found.running and host.was_live(found)
        traffic = {
            "ready": "live",
            "drain": "standby" if standby else "drain",
            "maint": "standby" if standby else "idle",
        }
        yield StatusRow(
            host=host.name,
            role=found.role,
            slot=found.slot,
            version=found.version,
            state=f"{found.state} ({found.health})" if found.health else found.state,
            traffic=traffic[server.state] if server else "-",
            weight=server.weight if server and server.state == "ready" else 0,
            since=found.started,
        )
