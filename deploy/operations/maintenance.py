"""`invoke maintenance.on` and `maintenance.off`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy import proxy
from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.operations.host_session import open_session

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.hosts.host import Host


def set_maintenance(name: str, events: Events, *, on: bool, hosts: Sequence[str] = ()) -> None:
    """Make the proxies answer 503 with `Retry-After`, or serve again. The slots keep running.

    Raises `UsageError` if no proxy runs on a host.
    """
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        session.require_all()

        def switch(host: Host) -> None:
            if not proxy.read_facts(host, environment)[0].running:
                raise UsageError(
                    f"{host.name}: the proxy of {name} does not run",
                    hint=f"start it with `invoke deploy --env={name}`",
                    host=host.name,
                )
            proxy.set_maintenance(host, environment, on)
            events.emit("note", f"maintenance {'on' if on else 'off'}", host=host.name)

        web = [session.hosts[config.name] for config in environment.hosts_with("web")]
        session.run_on(web, switch)
