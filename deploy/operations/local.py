"""The environment `local`: this machine's engine, brought up from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.images.bases import ensure_bases, select
from deploy.machine.engine import ensure_engine
from deploy.operations.deploy import Result, deploy

if TYPE_CHECKING:
    from deploy.events import Events

NAME = "local"


def up(events: Events, name: str = NAME) -> Result:
    """Bring up the engine and the proxy's image, then deploy this checkout to `name`.

    Raises what `ensure_engine`, `ensure_bases` and `deploy` raise.
    """

    def announce(text: str) -> None:
        events.emit("note", text)

    ensure_engine(announce)
    if own := select([load_environment(name).proxy.image]):
        ensure_bases(own, announce=announce)
    return deploy(name, events)
