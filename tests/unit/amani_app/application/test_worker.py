"""The rounds of a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import create_engine

from amani_app.adapters.database.workers import DatabaseWorkerRegister
from amani_app.adapters.memory.workers import MemoryWorkerRegister
from amani_app.application.common.lifecycle import Lifecycle
from amani_app.application.common.queues import Going
from amani_app.application.common.readiness import CheckReadiness
from amani_app.application.worker.worker import Worker
from amani_app.ports.schema import DatabaseUnavailable
from tests.unit.amani_app.application.test_readiness import Schema

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


class Log:
    """A log that keeps the names of events."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.told.append(event)

    warning = info


class Job:
    """A job that counts its calls, and raises `trouble` if given."""

    def __init__(self, name: str, trouble: Exception | None = None) -> None:
        self.name = name
        self.trouble = trouble
        self.calls = 0

    def __call__(self, going: Going) -> int:
        assert going()
        self.calls += 1
        if self.trouble:
            raise self.trouble
        return 1


class Stand:
    """A worker with an in-memory register, a log and a clock."""

    def __init__(self, *jobs: Job, live: str = "0002") -> None:
        self.log, self.register, self.now = Log(), MemoryWorkerRegister(), NOW
        lifecycle = Lifecycle()
        lifecycle.start()
        self.worker = Worker(
            name="w",
            version="1.0.0",
            register=self.register,
            readiness=CheckReadiness(lifecycle, Schema(live), 0),
            jobs=jobs,
            log=self.log,
            now=lambda: self.now,
        )


def test_each_round_runs_every_job_and_stop_deregisters_the_worker() -> None:
    one, other = Job("one"), Job("other")
    stand = Stand(one, other)
    rests = iter((False, False, True))
    stand.worker.run(lambda: next(rests))
    assert (one.calls, other.calls) == (3, 3)
    assert stand.register.seen == {}
    assert (stand.log.told[0], stand.log.told[-1]) == ("worker.started", "worker.stopped")


def test_heartbeat_is_written_at_intervals() -> None:
    stand = Stand()
    for seconds, seen in ((0, 0), (9, 0), (10, 10), (19, 10), (21, 21)):
        stand.now = NOW + timedelta(seconds=seconds)
        stand.worker.round()
        assert stand.register.seen["w"] == ("1.0.0", NOW + timedelta(seconds=seen))


def test_failed_job_does_not_block_the_others() -> None:
    bad, good = Job("bad", RuntimeError("a bug")), Job("good")
    stand = Stand(bad, good)
    stand.worker.round()
    assert good.calls == 1
    assert stand.log.told == ["worker.job_failed", "worker.job"]


def test_unavailable_database_skips_the_rest_of_the_round() -> None:
    away, next_one = Job("away", DatabaseUnavailable()), Job("next")
    stand = Stand(away, next_one)
    stand.worker.round()
    assert next_one.calls == 0
    assert stand.log.told == ["worker.waiting"]


def test_worker_waits_while_schema_is_behind() -> None:
    job = Job("one")
    stand = Stand(job, live="0001")
    stand.worker.round()
    assert (job.calls, stand.register.seen) == (0, {})
    assert stand.log.told == ["worker.waiting"]


def test_worker_stops_if_register_is_unreachable() -> None:
    stand = Stand()
    stand.worker.register = DatabaseWorkerRegister(create_engine("sqlite:////no/such/x.sqlite3"))
    stand.worker.run(lambda: True)
    assert stand.log.told[-2:] == ["worker.register_unreachable", "worker.stopped"]
