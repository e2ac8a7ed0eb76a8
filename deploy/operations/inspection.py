"""Looking into what runs: logs, and one-off commands in the live image."""

from __future__ import annotations

import queue
import secrets as entropy
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.database.revisions import History
from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.operations.session import Session, open_session
from deploy.operations.source import find_on_hosts
from deploy.state import containers
from deploy.state.facts import ContainerFacts, HostFacts
from deploy.state.release import ImageRef

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events


def live_container(host: HostFacts, role: str) -> ContainerFacts | None:
    """The container of a role that works on a host now."""
    if role == "web":
        return host.container("web", host.live_slot) if host.live_slot else None
    running = (found for found in host.containers if found.role == role and found.running)
    return next(running, None)


def logs(
    name: str,
    events: Events,
    *,
    follow: bool = False,
    hosts: Sequence[str] = (),
    role: str = "",
    tail: int = 50,
) -> Iterator[tuple[str, str]]:
    """Pairs of place (`host/role`) and line, from the live containers; endless with `follow`."""
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        session.require_all()
        sources = list(_sources(session, role))
        if not sources:
            raise UsageError(f"nothing of {name} runs" + (f" as {role}" if role else ""))
        if not follow:
            for host, found in sources:
                text = session.hosts[host].engine.logs(found.id, tail=tail)
                yield from ((f"{host}/{found.role}", line) for line in text.splitlines())
            return
        yield from _follow(session, sources, tail)


def _sources(session: Session, role: str) -> Iterator[tuple[str, ContainerFacts]]:
    for host in session.facts().hosts.values():
        for each in (role,) if role else host.roles:
            found = live_container(host, each)
            if found is not None:
                yield host.name, found


def _follow(
    session: Session, sources: Sequence[tuple[str, ContainerFacts]], tail: int
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


def schema(name: str, events: Events) -> tuple[str, str]:
    """The revision that the database is at, and those that the live release brings beyond it."""
    with open_session(load_environment(name), events) as session:
        session.require_all()
        facts = session.facts()
        live = [record for record in facts.history if record.live]
        found = (
            find_on_hosts(facts, session.environment.image.repository, live[-1].digest)
            if live
            else None
        )
        history = found.release.history if found else History()
        at = facts.schema or ""
        ahead = history.after(at) if at in history else ()
        return at, ", ".join(f"{one.id} ({one.kind})" for one in ahead) or "none"


def run_one_off(
    name: str, command: Sequence[str], events: Events, *, host: str = ""
) -> tuple[int, str]:
    """Run a command in a one-off container of the live image, with its settings and secrets.

    Returns its exit status and what it printed; the container is removed. Runs on `host`, or on
    the first web host.
    """
    environment = load_environment(name, hosts=[host] if host else ())
    with open_session(environment, events) as session:
        session.require_all()
        facts = session.facts()
        for found in facts.hosts.values():
            live = live_container(found, "web") or live_container(found, "worker")
            if live is not None:
                return _run(session, environment, found.name, live, command)
    raise UsageError(
        f"nothing of {name} runs, so there is no live image", hint=f"invoke deploy --env={name}"
    )


def _run(
    session: Session,
    environment: Environment,
    host: str,
    live: ContainerFacts,
    command: Sequence[str],
) -> tuple[int, str]:
    registered = environment.image.registered
    image = ImageRef(environment.image.repository, live.digest, registered=registered)
    generation = live.labels.get(containers.SECRETS, "")
    seconds = environment.timeouts.command
    return run_in_image(session, host, image, generation, command, seconds)


def run_in_image(
    session: Session,
    host: str,
    image: ImageRef,
    generation: str,
    command: Sequence[str],
    seconds: float,
) -> tuple[int, str]:
    """Run a command in a one-off container of an image; returns its exit status and its output.

    Raises `EngineError` if it does not end within `seconds`; the container is removed.
    """
    environment, engine = session.environment, session.hosts[host].engine
    spec = containers.one_off_container(
        environment,
        image,
        generation,
        purpose="exec",
        run_id=entropy.token_hex(3),
        command=tuple(command),
    )
    container = engine.create(spec)
    try:
        engine.start(container)
        status = engine.wait(container, seconds)
        return status, engine.logs(container, tail=100_000)
    finally:
        engine.remove(container)
