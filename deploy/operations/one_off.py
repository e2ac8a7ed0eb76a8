"""`invoke exec`: commands in one-off containers."""

from __future__ import annotations

import secrets as entropy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.operations.host_session import HostSession, open_session
from deploy.operations.live_containers import find_live_container
from deploy.state import containers
from deploy.state.release import ImageRef

if TYPE_CHECKING:
    from deploy.events import Events


def run_one_off(
    name: str, command: Sequence[str], events: Events, *, host: str = ""
) -> tuple[int, str]:
    """Run a command in a one-off container of the live image; return its exit status and output.

    The container gets the settings and secrets of the live container, runs on `host` or on the
    first host with a live container, and is removed afterwards. Raises `UsageError` if no
    container of the environment is live.
    """
    environment = load_environment(name, hosts=[host] if host else ())
    with open_session(environment, events) as session:
        session.require_all()
        for found in session.facts().hosts.values():
            live = find_live_container(found, "web") or find_live_container(found, "worker")
            if live is not None:
                config = environment.image
                image = ImageRef(config.repository, live.digest, registered=config.registered)
                generation = live.labels.get(containers.SECRETS, "")
                seconds = environment.timeouts.migrate
                return run_in_image(session, found.name, image, generation, command, seconds)
    raise UsageError(
        f"no live container in {name}, so there is no live image to run",
        hint=f"invoke deploy --env={name}",
    )


def run_in_image(
    session: HostSession,
    host: str,
    image: ImageRef,
    generation: str,
    command: Sequence[str],
    seconds: float,
) -> tuple[int, str]:
    """Run a command in a one-off container of an image; return its exit status and output.

    `generation` names the secrets on the host that the container gets. Raises `EngineError` if the
    command does not end within `seconds`; the container is removed.
    """
    environment, engine = session.environment, session.hosts[host].engine
    spec = containers.make_one_off_container(
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
