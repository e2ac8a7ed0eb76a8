"""Throughput and latency of the API, each with its baseline, alternating in one run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from deploy.errors import DeployError
from deploy.machine.checkout import ROOT
from deploy.machine.packages import ensure_packages
from workshop.bench import replay
from workshop.bench.api_client import ApiClient, ApiRequest, ApiUser
from workshop.bench.local_service import (
    API,
    LocalService,
    answers,
    free_port,
    installed,
    wait_for,
)
from workshop.bench.meters import Reading, Series, ask, ratio, transact
from workshop.bench.postgres import PostgresServer
from workshop.bench.seed_data import SeedData

PACKAGES = ("postgresql", "wrk")
WORKERS, THREADS = 2, 4
LONGEST = 120.0
"""Seconds until wrk ends a measurement of milestone releases that is not complete."""
SHORT = 1_000
"""Entries of the wallet that the long wallet is compared with."""
TARGETS = {"ping": 0.55, "release": 0.5, "entries": 0.8}
"""The lowest accepted median of each ratio to the baseline.

A page of the long wallet may cost a fifth more than one of the short wallet, noise included. The
baseline of a milestone's release is pgbench with one round trip for each statement; the ratio to
pgbench with the round trips of the service has no target.
"""
LOGS = {"logging_collector": "on", "log_destination": "jsonlog", "log_filename": "log",
        "log_directory": "..", "log_rotation_size": "0"}  # fmt: skip


def run(seconds: float, rounds: int, clients: int, releases: int, entries: int) -> dict[str, Any]:
    """Measure all loads `rounds` times; returns the figures as JSON values.

    A measurement takes `seconds`, or `releases` milestone releases for each of `clients`. `entries`
    is the length of the long wallet.
    """
    ensure_packages(PACKAGES, "the benchmark's database and client")
    settings = {"WEB_CONCURRENCY": str(WORKERS), "WEB_THREADS": str(THREADS)}
    settings["DATABASE_POOL_SIZE"] = str(THREADS)
    started = os.getloadavg()
    with installed(settings, LOGS) as (postgres, service):
        service.serve()
        with contextlib.closing(ApiClient(service.port)) as api:
            seed = SeedData.made(postgres, service, api)
            benchmark = ApiBenchmark(postgres, service, seed, rounds, clients)
            pings = benchmark.pings(seconds)
            # Before the releases: on empty tables PostgreSQL plans sequential scans until they are
            # analysed, so the releases need a ledger with many entries.
            pages = benchmark.pages(seconds, entries)
            released = {kind: benchmark.releases(kind, releases) for kind in ("spread", "hot")}
            figures = {"ping": pings, "release": released, "entries": pages}
    return {
        "load_average": {"before": started, "after": os.getloadavg()},
        "processors": os.cpu_count(),
        "python": sys.version,
        "workers_by_threads": [WORKERS, THREADS],
        "clients": clients,
        "rounds": rounds,
        **figures,
    }


class ApiBenchmark:
    """The measurements on one installation with seed data."""

    def __init__(
        self,
        postgres: PostgresServer,
        service: LocalService,
        seed: SeedData,
        rounds: int,
        clients: int,
    ) -> None:
        self._postgres = postgres
        self._service = service
        self._seed = seed
        self._rounds = rounds
        self._clients = clients

    def pings(self, seconds: float) -> dict[str, Any]:
        """Measure the ping, and an answer with a log line, beside a bare WSGI function."""
        port = self._serve_bare()
        bare, ping, logged = self._in_turn(
            lambda: ask(port, "/", self._clients, seconds),
            lambda: self._ask("/ping", seconds),
            lambda: self._ask("/version", seconds),
        )
        return {
            "bare": bare.figures(),
            "ping": ping.figures(),
            "with_a_line_in_the_log": logged.figures(),
            "ratio": ratio(ping, bare),
            "ratio_with_a_line_in_the_log": ratio(logged, bare),
        }

    def releases(self, kind: str, number: int) -> dict[str, Any]:
        """Measure a milestone's release over HTTP beside pgbench with the SQL of a release.

        pgbench sends each statement in a round trip of its own, or pipelines them as the service
        does. `kind` is `spread` to pay a different wallet each time, `hot` to pay always the same.
        """
        each = number * self._clients
        numbers = self._seed.submitted(kind, 1 + 3 * self._rounds * each)
        statements = self._recorded(numbers[0])
        firsts = iter(range(numbers[1], numbers[-1] + 1, each))

        def over_http() -> Reading:
            first = next(firsts)
            words = (self._seed.client.token, str(first), str(first + each - 1))
            reading = ask(self._service.port, "/", self._clients, LONGEST, *words)
            self._seed.released(first, first + each - 1)
            return reading

        def in_sql(pipelined: bool) -> Reading:
            first = next(firsts)
            known = self._seed.people
            script = replay.script(statements, str(numbers[0]), known, pipelined)
            variables = {"i": 0, "first": first, "span": number}
            reading = transact(self._postgres, script, self._clients, number, **variables)
            self._seed.released(first, first + each - 1)
            return reading

        http, sql, piped = self._in_turn(over_http, lambda: in_sql(False), lambda: in_sql(True))
        return {
            "http": http.figures(),
            "pgbench": sql.figures(),
            "pgbench_in_round_trips": piped.figures(),
            "ratio": ratio(http, sql),
            "ratio_in_round_trips": ratio(http, piped),
        }

    def pages(self, seconds: float, entries: int) -> dict[str, Any]:
        """Measure a page of 50 entries of a wallet with 1,000 entries and of one with `entries`."""
        short, long = self._seed.wallet(SHORT), self._seed.wallet(entries)
        few, many = self._in_turn(
            lambda: self._ask(_page(short), seconds, short.token),
            lambda: self._ask(_page(long), seconds, long.token),
        )
        return {
            "lengths": [SHORT, entries],
            "short": few.figures(),
            "long": many.figures(),
            "ratio": ratio(many, few),
        }

    def _in_turn(self, *loads: Callable[[], Reading]) -> list[Series]:
        """Run all loads in each round, so that a busy moment of the machine affects all of them."""
        taken: list[list[Reading]] = [[load() for load in loads] for _ in range(self._rounds)]
        return [Series([each[place] for each in taken]) for place in range(len(loads))]

    def _ask(self, path: str, seconds: float, *words: str) -> Reading:
        return ask(self._service.port, f"{API}{path}", self._clients, seconds, *words)

    def _serve_bare(self) -> int:
        port = free_port()
        words = (
            "gunicorn", "workshop.bench.bare:app", f"--pythonpath={ROOT}",
            f"--bind=127.0.0.1:{port}", f"--workers={WORKERS}", f"--threads={THREADS}",
            "--worker-class=gthread", "--keep-alive=95", "--reuse-port",
            "--worker-connections=100", "--worker-tmp-dir=/dev/shm", "--log-level=warning",
        )  # fmt: skip
        # In another folder, so that gunicorn does not read the service's gunicorn.conf.py.
        self._service.start(*words, log="bare.log", cwd=self._service.home)
        wait_for(lambda: answers(port, "/"), "first answer of the bare WSGI function")
        return port

    def _recorded(self, number: int) -> list[replay.Statement]:
        """The statements of one release. Raises `DeployError` if the service refuses it."""
        seed = self._seed
        path = f"/escrows/bench-e-{number}/milestones/bench-m-{number}/approve"
        request = ApiRequest(seed.client, path, version=4, key=f"bench-k-{number}")
        with replay.recorded(self._postgres) as recording:
            answer = seed.api.post(request)
        if not answer.acknowledged:
            raise DeployError(f"{path} answered {answer.status}: {answer.body}")
        return recording.statements


def _page(person: ApiUser) -> str:
    return f"/wallets/wallet:{person.id}:NGN/entries?limit=50"


def missed(figures: dict[str, Any]) -> Sequence[str]:
    """A line for each target that the figures do not reach."""
    found = {
        "ping": figures["ping"]["ratio"],
        **{f"release, {kind}": each["ratio"] for kind, each in figures["release"].items()},
        "entries": figures["entries"]["ratio"],
    }
    return [
        f"{name}: ratio {each['median']}, target {TARGETS[name.partition(',')[0]]}"
        for name, each in found.items()
        if each["median"] < TARGETS[name.partition(",")[0]]
    ]
