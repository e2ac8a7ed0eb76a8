"""`invoke up`: the environment `local`, with this machine's Docker Engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.images.bases import ensure_bases, select
from deploy.machine.engine import ensure_engine
from deploy.operations.deploy import deploy_release
from deploy.operations.planned_run import Result

if TYPE_CHECKING:
    from deploy.events import Events

NAME = "local"


def start_local(events: Events, name: str = NAME) -> Result:
    """Provide the Docker Engine and the proxy's image, then deploy this checkout to `name`.

    Raises the errors of `ensure_engine`, `ensure_bases` and `deploy_release`.
    """

    def announce(text: str) -> None:
        events.emit("note", text)

    ensure_engine(announce)
    if own := select([load_environment(name).proxy.image]):
        ensure_bases(own, announce=announce)
    return deploy_release(name, events)
