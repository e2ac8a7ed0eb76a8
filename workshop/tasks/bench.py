"""Benchmarks on hosts or servers of their own; figures as JSON on standard output."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task

ENV = {"env": "name of the practice fleet, brought up where it is not (default: bench)"}


@task(
    help=ENV
    | {
        "swaps": "how many deploys, of three versions in turn",
        "rate": "requests a second",
        "light": "swap a service that costs next to nothing, for rates beyond this machine's",
    }
)
def swap(
    context: Context,
    swaps: int = 20,
    rate: float = 2000.0,
    env: str = "bench",
    light: bool = False,
) -> None:
    """Swap releases under load; fails where any request failed."""
    import json

    from invoke.exceptions import Exit

    from workshop.bench.swaps import run

    result = run(env, swaps, rate, light=light)
    print(json.dumps(result, indent=2))
    if result["failures"]:
        raise Exit(f"{result['failures']} of {result['requests']} requests failed", code=1)


@task(name="deploy", help=ENV | {"hosts": "fleet sizes", "rounds": "runs of each"})
def time_deploys(
    context: Context, hosts: str = "1,2,4", rounds: int = 5, env: str = "bench"
) -> None:
    """Time deploys and rollbacks beside their floor: a container's start to its first answer."""
    import json

    from deploy.errors import UsageError
    from workshop.bench.deploys import run

    counts = [int(part) for part in hosts.split(",") if part.strip().isdigit()]
    if not counts or len(counts) != len(hosts.split(",")):
        raise UsageError(f"--hosts takes numbers such as 1,2,4, not {hosts!r}")
    print(json.dumps(run(env, counts, rounds), indent=2))


@task(
    help={
        "clients": "how many ask at a time",
        "seconds": "for how long",
        "seed": "repeats the choices of an earlier run (default: at random)",
    }
)
def chaos(
    context: Context, clients: int = 16, seconds: float = 60.0, seed: int | None = None
) -> None:
    """Kill the service's workers and its database under random use; fails on any wrong kobo."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.chaos import run

    if clients < 1 or seconds <= 0:
        raise UsageError("--clients and --seconds must be more than nothing")
    result = run(clients, seconds, seed)
    print(json.dumps(result, indent=2))
    if result["differences"]:
        raise Exit(f"{len(result['differences'])} differences", code=1)


@task(
    help={
        "seconds": "length of one stretch of load",
        "rounds": "stretches of each load, in turn",
        "clients": "connections, and pgbench's clients",
        "releases": "releases of each client in one stretch",
        "entries": "length of the long wallet",
    }
)
def api(
    context: Context,
    seconds: float = 5.0,
    rounds: int = 5,
    clients: int = 16,
    releases: int = 250,
    entries: int = 1_000_000,
) -> None:
    """Ping, releases and pages of entries beside their floors; fails where a target is missed."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.api import missed, run

    if min(seconds, rounds, clients, releases) < 1 or entries < 50:
        raise UsageError("every option must be 1 at least, --entries 50")
    result = run(seconds, rounds, clients, releases, entries)
    print(json.dumps(result, indent=2))
    if found := missed(result):
        raise Exit("; ".join(found), code=1)


@task(
    help={
        "env": "name of the practice fleet, brought up where it is not (default: bench-backup)",
        "rows": "rows besides the service's own",
        "rounds": "dumps, and plain dumps, in turn",
        "jobs": "how many dump and restore at once, with the rows in as many tables",
    }
)
def backup(
    context: Context,
    rows: int = 2_000_000,
    rounds: int = 3,
    jobs: int = 1,
    env: str = "bench-backup",
) -> None:
    """Back up beside `pg_dump | zstd`, lose a busy database and restore it; fails below 0.9."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.backups import run

    if min(rows, rounds, jobs) < 1 or jobs > 64:
        raise UsageError("--rows, --rounds and --jobs must be 1 at least, --jobs 64 at most")
    result = run(env, rows, rounds, jobs)
    print(json.dumps(result, indent=2))
    if result["ratio_to_plain"] < 0.9:
        raise Exit("slower than nine tenths of pg_dump | zstd", code=1)
