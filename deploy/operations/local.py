"""The environment `local`: this machine's engine, brought up from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy import environment as environments
from deploy.engine_bootstrap import ensure_engine
from deploy.images.bases import ensure_bases, select
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
    if own := select([environments.load(name).proxy.image]):
        ensure_bases(own, announce=announce)
    return deploy(name, events)
