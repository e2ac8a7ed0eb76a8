"""The service's containers, stopped for the moment in which SQLite's file is replaced."""

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
def standstill(host: Host, environment: Environment) -> Iterator[None]:
    """Nothing of the service runs on a host during the block, and whatever ran does so again after.

    What is stopped is noted on the host first: `resume` starts it where a kill left it so.
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
        resume(host, environment)


def resume(host: Host, environment: Environment) -> None:
    """Start what a standstill stopped. Only under the environment's lock.

    But for roles in which something else has begun to work meanwhile: a deploy saw to them.
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
