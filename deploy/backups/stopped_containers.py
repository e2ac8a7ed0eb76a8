"""Stop the service's containers while SQLite's file is replaced, and start them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy.backups import catalogue
from deploy.state import containers

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host

_ROLES = ("web", "worker")


def _note(environment: Environment) -> str:
    return f"{catalogue.folder(environment)}/stopped"


@contextlib.contextmanager
def containers_stopped(host: Host, environment: Environment) -> Iterator[None]:
    """Stop the running containers of the service on a host, and start them after the block.

    Their ids are written to the host first: if this process is killed, the next run starts them by
    `restart_stopped`.
    """
    found = host.engine.containers({containers.ENVIRONMENT: environment.name})
    running = {
        each["Id"]: environment.role(each["Labels"][containers.ROLE]).stop_timeout
        for each in found
        if each["State"] == "running" and each["Labels"].get(containers.ROLE) in _ROLES
    }
    host.write_file(_note(environment), "\n".join(running).encode())
    try:
        for container, stop_timeout in running.items():
            host.engine.stop(container, stop_timeout)
        yield
    finally:
        restart_stopped(host, environment)


def restart_stopped(host: Host, environment: Environment) -> None:
    """Start the containers that `containers_stopped` stopped. Needs the environment's lock.

    A container stays stopped if another one of its role runs: a deploy has replaced it.
    """
    noted = host.read_file(_note(environment))
    if noted is None:
        return
    stopped = set(noted.decode().split())
    found = host.engine.containers({containers.ENVIRONMENT: environment.name})
    replaced = {
        each["Labels"].get(containers.ROLE)
        for each in found
        if each["State"] == "running" and each["Id"] not in stopped
    }
    for each in found:
        if each["Id"] in stopped and each["Labels"].get(containers.ROLE) not in replaced:
            host.engine.start(each["Id"])
    host.run(("rm", "-f", "--", _note(environment)))
