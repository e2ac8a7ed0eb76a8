"""Practice hosts: real hosts on this machine to rehearse deploys, rollbacks and outages on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke.context import Context

from deploy.tasks.surface import task

if TYPE_CHECKING:
    from workshop.fleet.practice_host import PracticeHost

NAME = {"name": "the fleet's name; several stand side by side"}
HOST = NAME | {"host": "the host's number, counted from 1"}


@task(
    help=NAME
    | {
        "hosts": "how many",
        "web": "numbers of the web hosts, such as 1,2 (default: all)",
        "workers": "numbers of the worker hosts (default: those that --web leaves, or the last)",
        "database": "give PostgreSQL a host of its own, where it can be taken back to any moment",
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
    """Bring the fleet up, or to another number of hosts, or repair it; as often as you like."""
    from workshop.fleet.fleet import Fleet

    chosen_web, chosen_workers = _numbers("--web", web), _numbers("--workers", workers)
    with Fleet(name) as fleet:
        done = fleet.up(hosts, web=chosen_web, workers=chosen_workers, database=database)
        print("\n".join(done) or "nothing to do")
        print(f"{fleet.environment_file} describes it: invoke deploy --env={name}")


@task(help=NAME)
def down(context: Context, name: str = "fleet") -> None:
    """Remove the fleet with everything that it holds."""
    from workshop.fleet.fleet import Fleet

    with Fleet(name) as fleet:
        print("\n".join(fleet.down()) or "nothing to do")


@task(help=NAME)
def status(context: Context, name: str = "fleet") -> None:
    """Show each host's address, state and engine."""
    from workshop.fleet.fleet import Fleet

    with Fleet(name) as fleet:
        found = fleet.status()
    for host in found.hosts:
        engine = f"Docker {host.engine}" if host.engine else "no engine answers"
        print(f"{host.name:<10}{host.address:<17}{host.state:<10}{engine}")
    for service, (address, state) in found.services.items():
        print(f"{service:<10}{address:<17}{state}")


@task(help=HOST)
def pause(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Freeze a host: connections stay open and nothing answers."""
    with _host(name, host) as chosen:
        chosen.pause()


@task(help=HOST)
def kill(context: Context, host: int = 0, name: str = "fleet") -> None:
    """End every process of a host at once, as when the power goes."""
    with _host(name, host) as chosen:
        chosen.kill()


@task(help=HOST)
def cut(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Drop every packet between a host and its network; its processes run on."""
    with _host(name, host) as chosen:
        chosen.cut()


@task(help=HOST)
def heal(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Undo what was done to a host and wait until it answers."""
    with _host(name, host) as chosen:
        print(chosen.heal() or "nothing to do")


@task(help=HOST)
def restart_engine(context: Context, host: int = 0, name: str = "fleet") -> None:
    """Restart a host's Docker Engine; its containers run on."""
    with _host(name, host) as chosen:
        chosen.restart_engine()


@contextmanager
def _host(name: str, number: int) -> Iterator[PracticeHost]:
    from deploy.errors import UsageError
    from workshop.fleet.fleet import Fleet

    if not number:
        raise UsageError("which host is meant?", hint="Name it by its number: --host=1")
    with Fleet(name) as fleet:
        yield fleet.host(number)


def _numbers(option: str, text: str) -> Sequence[int] | None:
    from deploy.errors import UsageError

    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise UsageError(f"{option} takes numbers of hosts such as 1,3, not {text!r}") from None
