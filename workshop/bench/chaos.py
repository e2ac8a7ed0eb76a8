"""Concurrent users on shared wallets while processes are killed, then a check of the ledger."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deploy.machine.packages import ensure_packages
from workshop.bench.api_client import ApiAnswer, ApiClient, ApiRequest, ApiUser
from workshop.bench.ledger_checks import LedgerChecks, OperatorDeposit
from workshop.bench.local_service import (
    API,
    PASSWORD,
    LocalService,
    answers,
    children,
    installed,
    wait_for,
)
from workshop.bench.postgres import PostgresServer
from workshop.bench.user_journeys import SharedState, UserJourney

PACKAGES = ("postgresql",)
MEMBERS = 6
OPENING = 20_000_000
"""Minor units in each wallet at the start: enough for some of the agreements only."""
TOP_UP = 1_000_000
BETWEEN_KILLS = (0.5, 2.5)
"""Seconds from one killed gunicorn worker to the next."""
WORKER_LIFE = (3.0, 9.0)
"""Seconds until `flask amani worker` is killed."""
SETTLING = 10.0
"""Seconds that the worker gets at the end to process due withdrawals."""


@dataclass
class Faults:
    """Counts of the injected faults, and the seconds that the database was down."""

    kills: int = 0
    payout_workers_killed: int = 0
    deposits_killed: int = 0
    restart_seconds: float = 0.0


@dataclass
class ChaosRun:
    """One installation, its users, and the faults that are injected into it."""

    postgres: PostgresServer
    service: LocalService
    choice: random.Random
    shared: SharedState
    deposits: list[OperatorDeposit] = field(default_factory=list)
    done: Faults = field(default_factory=Faults)

    def disturb(self, master: int, seconds: float) -> Iterator[Callable[[], None]]:
        """The fault injectors and deposits, each to run in a thread beside the users."""
        yield lambda: self._kill_workers(master)
        yield lambda: self._restart_database(seconds / 2)
        yield self._deposit
        yield self._pay_out

    def end(self) -> None:
        """Tell fault injectors and users to end."""
        self.shared.over.set()

    def book(self, person: ApiUser, reference: str, amount: int, patience: float = 60.0) -> None:
        """Run `flask amani deposit`; kill it after `patience` seconds."""
        deposit = OperatorDeposit(person.id, reference, amount)
        self.deposits.append(deposit)
        major = f"{amount // 100}.{amount % 100:02}"
        words = ("amani", "deposit", person.email, major, "--reference", reference)
        process = self.service.start("flask", *words, log="deposits.log")
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            self.done.deposits_killed += 1
        deposit.done = process.wait() == 0
        if deposit.done:
            self.service.arrived(amount)

    def _kill_workers(self, master: int) -> None:
        while not self.shared.over.wait(self.choice.uniform(*BETWEEN_KILLS)):
            if found := children(master):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.choice.choice(found), signal.SIGKILL)
                    self.done.kills += 1

    def _restart_database(self, after: float) -> None:
        """Restart the database by an immediate shutdown, so that it recovers from its log."""
        if self.shared.over.wait(after):
            return
        started = time.monotonic()
        self.postgres.stop("immediate")
        self.postgres.start()
        self.done.restart_seconds = round(time.monotonic() - started, 2)

    def _pay_out(self) -> None:
        """Run the worker and kill it at random times; the last one is not killed."""
        while True:
            worker = self.service.start("flask", "amani", "worker", log="worker.log")
            if self.shared.over.wait(self.choice.uniform(*WORKER_LIFE)):
                return
            worker.kill()
            worker.wait()
            self.done.payout_workers_killed += 1

    def _deposit(self) -> None:
        number = 0
        while not self.shared.over.wait(1.0):
            number += 1
            person = self.choice.choice(self.shared.members)
            patience = self.choice.choice((60.0, self.choice.uniform(0.3, 1.5)))
            self.book(person, f"chaos-{number}", TOP_UP, patience)


def run(clients: int, seconds: float, seed: int | None = None) -> dict[str, Any]:
    """Run `clients` users for `seconds` under faults, then check the ledger.

    Returns the figures as JSON values; `differences` must be empty. `seed` repeats the random
    choices of an earlier run, but not the timing of its threads.
    """
    ensure_packages(PACKAGES, "the benchmark's database")
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    settings = {"WEB_CONCURRENCY": "3", "LOG_LEVEL": "WARNING"}
    with contextlib.ExitStack() as stack:
        postgres, service = stack.enter_context(installed(settings))
        service.serve_provider()
        master = service.serve().pid
        api = stack.enter_context(contextlib.closing(ApiClient(service.port)))
        order = random.Random(seed)  # nosec B311 - not for secrets
        chaos = ChaosRun(postgres, service, order, _sign_up_all(service, api))
        for number, member in enumerate(chaos.shared.members):
            chaos.book(member, f"opening-{number}", OPENING)
        load = os.getloadavg()[0]
        spent = _run_journeys(chaos, api, master, clients, seconds, seed)
        wait_for(
            lambda: answers(service.port, f"{API}/readiness"),
            "readiness of the service after the run",
        )
        figures = _figures(chaos, spent)  # before the checks send all requests again
        found = _check_ledger(chaos, api, clients)
        return {"seed": seed, "clients": clients, "load_average": load, **figures, **found}


def _sign_up_all(service: LocalService, api: ApiClient) -> SharedState:
    members = [api.sign_up(f"member{number}@example.org") for number in range(MEMBERS)]
    words = ("amani", "user-create", "arbiter@example.org", "--name=Arbiter", "--role=arbiter")
    service.must(*words, AMANI_PASSWORD=PASSWORD)
    return SharedState(members, api.sign_in("arbiter@example.org"))


def _run_journeys(
    chaos: ChaosRun, api: ApiClient, master: int, clients: int, seconds: float, seed: int
) -> float:
    """Run users, fault injectors and deposits; returns the seconds that they took."""
    started = time.monotonic()
    with ThreadPoolExecutor(3 * clients) as races, ThreadPoolExecutor(clients + 4) as pool:
        callers = [UserJourney(chaos.shared, api, races, seed + n) for n in range(1, clients + 1)]
        running = [pool.submit(caller.run, started + seconds) for caller in callers]
        others = [pool.submit(each) for each in chaos.disturb(master, seconds)]
        try:
            for future in running:
                future.result()
        finally:
            chaos.end()
        for future in others:
            future.result()
    return time.monotonic() - started


def _check_ledger(chaos: ChaosRun, api: ApiClient, clients: int) -> dict[str, Any]:
    """Reconcile and compare, send all requests again, and compare once more."""
    requests = chaos.shared.requests
    _fund_provider(chaos)
    states = _finish_withdrawals(chaos.postgres)
    checks = LedgerChecks(chaos.postgres, requests, chaos.deposits)
    found = [*_reconcile(chaos.service), *checks.differences()]
    applied = [request for request in requests if checks.applied(request)]
    unknown = [r for r in requests if not all(a.acknowledged or a.refused for a in r.answers)]
    unanswered = [r for r in unknown if r.acknowledgement is None]
    figures = {
        "unanswered_and_done": sum(checks.applied(request) for request in unanswered),
        "unanswered_and_not_done": sum(not checks.applied(request) for request in unanswered),
        "replayed": len(applied),
        "withdrawals": states,
    }
    with ThreadPoolExecutor(clients) as pool:
        found += filter(None, pool.map(lambda each: _replay(api, checks, each), applied))
        # A client without an answer sends the request again: it has its effect once or is refused.
        rest = [request for request in unanswered if not checks.applied(request)]
        for answer in pool.map(api.post, rest):
            if not (answer.acknowledged or answer.refused):
                found.append(f"sent again after the run: status {answer.status}")
    found += [*_reconcile(chaos.service), *checks.differences()]
    return {**figures, "differences": list(dict.fromkeys(found))}


def _fund_provider(chaos: ChaosRun) -> None:
    """Fund the provider for deposits that were recorded although their command was killed."""
    booked = chaos.postgres.rows("SELECT reference FROM transfers WHERE reason = 'deposit'")
    there = {row["reference"] for row in booked}
    for deposit in chaos.deposits:
        if deposit.reference in there and not deposit.done:
            chaos.service.arrived(deposit.amount)


def _finish_withdrawals(postgres: PostgresServer) -> dict[str, int]:
    """Wait until the worker has processed the due withdrawals; returns their number by state.

    A withdrawal that a killed worker had claimed is retried minutes later. Its amount stays
    reserved, and the ledger must balance meanwhile.
    """
    query = "SELECT state, count(*) AS n FROM withdrawals GROUP BY 1 ORDER BY 1"
    deadline = time.monotonic() + SETTLING
    while True:
        found = {row["state"]: row["n"] for row in postgres.rows(query)}
        if "requested" not in found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _replay(api: ApiClient, checks: LedgerChecks, request: ApiRequest) -> str | None:
    answer = api.post(request)
    if answer.acknowledged and answer.replayed and answer.body == checks.body(request):
        return None
    name = f"{request.path} ({request.key})"
    return f"{name} sent again: status {answer.status}, replayed {answer.replayed}"


def _reconcile(service: LocalService) -> list[str]:
    done = service.flask("amani", "reconcile")
    if done.returncode == 0 and not done.stdout.strip():
        return []
    return [f"reconcile: {line}" for line in (done.stdout or done.stderr).splitlines()]


def _figures(chaos: ChaosRun, seconds: float) -> dict[str, Any]:
    requests = chaos.shared.requests
    received = [answer for request in requests for answer in request.answers]
    return {
        "seconds": round(seconds, 1),
        "requests": len(requests),
        "answers": {str(k): n for k, n in sorted(Counter(a.status for a in received).items())},
        "reads": {str(k): n for k, n in sorted(_statuses(chaos.shared.reads).items())},
        "acknowledged": sum(request.acknowledgement is not None for request in requests),
        "acknowledged_by_a_repeat": sum(
            bool(r.acknowledgement and r.acknowledgement.replayed) for r in requests
        ),
        "by_verb": dict(Counter(r.verb for r in requests if r.acknowledgement).most_common()),
        "races": chaos.shared.races,
        "workers_killed": chaos.done.kills,
        "payout_workers_killed": chaos.done.payout_workers_killed,
        "database_restarted_in_seconds": chaos.done.restart_seconds,
        "deposits": sum(deposit.done for deposit in chaos.deposits),
        "deposits_killed": chaos.done.deposits_killed,
        "milliseconds": _percentiles([a.seconds for a in received if a.acknowledged]),
    }


def _statuses(received: list[ApiAnswer]) -> Counter[int]:
    return Counter(answer.status for answer in received)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": round(1000 * cuts[49], 1), "p99": round(1000 * cuts[98], 1)}
