"""`invoke logs`: the output of the live containers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.operations.host_session import HostSession, open_session
from deploy.operations.live_containers import find_live_container

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.state.facts import ContainerFacts


def read_logs(
    name: str,
    events: Events,
    *,
    follow: bool = False,
    hosts: Sequence[str] = (),
    role: str = "",
    tail: int = 50,
) -> Iterator[tuple[str, str]]:
    """Yield pairs of `host/role` and a line, from the live containers; endless with `follow`.

    `tail` is the number of earlier lines from each container. Raises `UsageError` if no container
    of the environment, or of `role`, is live.
    """
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        session.require_all()
        sources = list(_sources(session, role))
        if not sources:
            raise UsageError(
                f"no live container in {name}" + (f" with the role {role}" if role else ""),
                hint=f"invoke status --env={name}",
            )
        if not follow:
            for host, found in sources:
                text = session.hosts[host].engine.logs(found.id, tail=tail)
                yield from ((f"{host}/{found.role}", line) for line in text.splitlines())
            return
        yield from _follow(session, sources, tail)


def _sources(session: HostSession, role: str) -> Iterator[tuple[str, ContainerFacts]]:
    for host in session.facts().hosts.values():
        for each in (role,) if role else host.roles:
            found = find_live_container(host, each)
            if found is not None:
                yield host.name, found


def _follow(
    session: HostSession, sources: Sequence[tuple[str, ContainerFacts]], tail: int
) -> Iterator[tuple[str, str]]:
    lines: queue.Queue[tuple[str, str] | DeployError | None] = queue.Queue(1000)

    def read(host: str, found: ContainerFacts) -> None:
        try:
            for line in session.hosts[host].engine.follow_logs(found.id, tail=tail):
                text = line.decode(errors="replace").rstrip()
                lines.put((f"{host}/{found.role}", text))
        except DeployError as error:
            lines.put(error)
        lines.put(None)

    for source in sources:
        threading.Thread(target=read, args=source, daemon=True).start()
    open_sources = len(sources)
    while open_sources:
        item = lines.get()
        if item is None:
            open_sources -= 1
        elif isinstance(item, DeployError):
            raise item
        else:
            yield item
