"""Practice hosts: hosts in containers of this machine for rehearsals of deploys and outages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke.context import Context

from deploy.tasks.surface import task

if TYPE_CHECKING:
    from workshop.fleet.practice_host import PracticeHost

NAME = {"name": "the fleet's name; several fleets can run at the same time"}
HOST = NAME | {"host": "the host's number, counted from 1"}


@task(
    help=NAME
    | {
        "hosts": "number of hosts",
        "web": "numbers of the web hosts, such as 1,2 (default: all)",
        "workers": "numbers of the worker hosts (default: those not in --web, or the last)",
        "database": "run PostgreSQL on a host of its own with point-in-time recovery",
    }
)
def up(
    context: Context,
    hosts: int = 3,
    web: str = "",
    workers: str = "",
    name: str = "fleet",
    database: bool = False,
) -> None:
    """Create or repair the fleet, or change its number of hosts; can be repeated."""
    from workshop.fleet.fleet import Fleet

    chosen_web, chosen_workers = _numbers("--web", web), _numbers("--workers", workers)
    with Fleet(name) as fleet:
        done = fleet.up(hosts, web=chosen_web, workers=chosen_workers, database=database)
        print("\n".join(done) or "nothing to do")
        print(f"{fleet.environment_file} describes it: invoke deploy --env={name}")


@task(help=NAME)
def down(context: Context, name: str = "fleet") -> None:
    """Remove the fleet with its volumes, network and files."""
    from workshop.fleet.fleet import Fleet

    with Fleet(name) as fleet:
        print("\n".join(fleet.down()) or "nothing to do")


@task(help=NAME)
def status(context: Context, name: str = "fleet") -> None:
    """Show the address, the state and the engine of each host."""
    from workshop.fleet.fleet import Fleet

    with Fleet(name) as fleet:
        found = fleet.status()
    for host in found.hosts:
        engine = f"Docker {host.engine}" if host.engine else "its engine does not answer"
        print(f"{host.name:<10}{host.address:<17}{host.state:<10}{engine}")
    for service, (address, state) in found.services.items():
        print(f"{service:<10}{address:<17}{state}")


@task(help=HOST)
def pause(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Freeze a host: connections stay open without an answer."""
    with _host(name, host) as chosen:
        chosen.pause()


@task(help=HOST)
def kill(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Kill all processes of a host at once, as a power failure does."""
    with _host(name, host) as chosen:
        chosen.kill()


@task(help=HOST)
def cut(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Drop all packets between a host and its network; its processes keep running."""
    with _host(name, host) as chosen:
        chosen.cut()


@task(help=HOST)
def heal(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Undo pause, kill and cut of a host, and wait until it answers."""
    with _host(name, host) as chosen:
        print(chosen.heal() or "nothing to do")


@task(help=HOST)
def restart_engine(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Restart a host's Docker Engine; its containers keep running."""
    with _host(name, host) as chosen:
        chosen.restart_engine()


@contextmanager
def _host(name: str, number: int) -> Iterator[PracticeHost]:
    from deploy.errors import UsageError
    from workshop.fleet.fleet import Fleet

    if not number:
        raise UsageError("--host is missing", hint="Give the number of a host: --host=1")
    with Fleet(name) as fleet:
        yield fleet.host(number)


def _numbers(option: str, text: str) -> Sequence[int] | None:
    from deploy.errors import UsageError

    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise UsageError(f"{option} takes numbers of hosts such as 1,3, not {text!r}") from None
