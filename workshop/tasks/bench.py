"""Benchmarks, each on its own hosts or server; figures as JSON on standard output."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task

ENV = {"env": "name of the practice fleet, which is started if it is down (default: bench)"}


@task(
    help=ENV
    | {
        "swaps": "number of deploys, of three versions in turn",
        "rate": "requests per second",
        "light": "deploy a minimal service, for rates that the real one cannot serve here",
    }
)
def swap(
    context: Context,
    swaps: int = 20,
    rate: float = 2000.0,
    env: str = "bench",
    light: bool = False,
) -> None:
    """Deploy releases under load; fails if any request failed."""
    import json

    from invoke.exceptions import Exit

    from workshop.bench.swaps import run

    result = run(env, swaps, rate, light=light)
    print(json.dumps(result, indent=2))
    if result["failures"]:
        raise Exit(f"{result['failures']} of {result['requests']} requests failed", code=1)


@task(name="deploy", help=ENV | {"hosts": "numbers of hosts", "rounds": "measurements of each"})
def time_deploys(
    context: Context, hosts: str = "1,2,4", rounds: int = 5, env: str = "bench"
) -> None:
    """Time deploys and rollbacks with the start of a container as the baseline."""
    import json

    from deploy.errors import UsageError
    from workshop.bench.deploys import run

    counts = [int(part) for part in hosts.split(",") if part.strip().isdigit()]
    if not counts or len(counts) != len(hosts.split(",")):
        raise UsageError(f"--hosts takes numbers such as 1,2,4, not {hosts!r}")
    print(json.dumps(run(env, counts, rounds), indent=2))


@task(
    help={
        "clients": "number of concurrent users",
        "seconds": "duration of the run",
        "seed": "repeats the choices of an earlier run (default: at random)",
    }
)
def chaos(
    context: Context, clients: int = 16, seconds: float = 60.0, seed: int | None = None
) -> None:
    """Kill workers and database under random requests; fails if the ledger is wrong."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.chaos import run

    if clients < 1 or seconds <= 0:
        raise UsageError("--clients and --seconds must be greater than 0")
    result = run(clients, seconds, seed)
    print(json.dumps(result, indent=2))
    if result["differences"]:
        raise Exit(
            f"{len(result['differences'])} differences between the ledger and the answers", code=1
        )


@task(
    help={
        "seconds": "duration of one measurement",
        "rounds": "measurements of each load, in turn",
        "clients": "connections, and pgbench's clients",
        "releases": "milestone releases of each client in one measurement",
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
    """Measure ping, milestone releases and pages with their baselines; fails below a target."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.api import missed, run

    if min(seconds, rounds, clients, releases) < 1 or entries < 50:
        raise UsageError("each option must be at least 1, --entries at least 50")
    result = run(seconds, rounds, clients, releases, entries)
    print(json.dumps(result, indent=2))
    if found := missed(result):
        raise Exit("; ".join(found), code=1)


@task(
    help={
        "env": "name of the practice fleet, which is started if it is down (default: bench-backup)",
        "rows": "rows in addition to the service's own",
        "rounds": "backups and plain dumps, in turn",
        "jobs": "parallel jobs of dump and restore, with the rows in as many tables",
    }
)
def backup(
    context: Context,
    rows: int = 2_000_000,
    rounds: int = 3,
    jobs: int = 1,
    env: str = "bench-backup",
) -> None:
    """Compare a backup with `pg_dump | zstd`, restore a dropped database; fails below 0.9."""
    import json

    from invoke.exceptions import Exit

    from deploy.errors import UsageError
    from workshop.bench.backups import run

    if min(rows, rounds, jobs) < 1 or jobs > 64:
        raise UsageError("--rows, --rounds and --jobs must be at least 1, --jobs at most 64")
    result = run(env, rows, rounds, jobs)
    print(json.dumps(result, indent=2))
    if result["ratio_to_plain"] < 0.9:
        raise Exit("the backup reaches less than 0.9 of the speed of pg_dump | zstd", code=1)
