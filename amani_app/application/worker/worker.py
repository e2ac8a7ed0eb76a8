"""The worker: rounds of jobs until it must stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from amani_app.application.common.queues import Going, always
from amani_app.application.common.readiness import CheckReadiness
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.workers import WorkerRegister

BEAT_EVERY = timedelta(seconds=10)
FORGET_AFTER = timedelta(hours=1)


class WorkerLog(Protocol):
    """The methods of a structlog logger that the worker calls."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any:
        """An event that an operator may want to check."""


class WorkerJob(Protocol):
    """A job that is safe to run in many workers at once."""

    name: str

    def __call__(self, going: Going) -> int:
        """Process what is due while `going`; returns the number of items."""


@dataclass
class Worker:
    """Runs `jobs` in rounds, and records heartbeats in `register`."""

    name: str
    version: str
    register: WorkerRegister
    readiness: CheckReadiness
    jobs: Sequence[WorkerJob]
    log: WorkerLog
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    going: Going = always
    _beaten: datetime = datetime.min.replace(tzinfo=UTC)

    def run(self, rest: Callable[[], bool]) -> None:
        """Run a round, then `rest`, until that returns true.

        The current item is finished first. While the database is unreachable or behind, the
        worker waits.
        """
        self.log.info("worker.started", worker=self.name)
        while True:
            self.round()
            if rest():
                break
        try:
            self.register.leave(self.name)
        except DatabaseUnavailable:
            self.log.warning("worker.register_unreachable", worker=self.name)
        self.log.info("worker.stopped", worker=self.name)

    def round(self) -> None:
        """Record a heartbeat if it is due, and run every job once."""
        verdict = self.readiness()
        if not verdict.ready:
            self.log.warning("worker.waiting", reason=verdict.reason)
            return
        try:
            self._beat()
            for job in self.jobs:
                self._do(job)
        except DatabaseUnavailable:
            self.log.warning("worker.waiting", reason="the database is unreachable")

    def _do(self, job: WorkerJob) -> None:
        try:
            if done := job(self.going):
                self.log.info("worker.job", job=job.name, done=done)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # The failing item is leased and retried later; it must not delay the other jobs.
            self.log.warning("worker.job_failed", job=job.name, exc_info=error)

    def _beat(self) -> None:
        if (now := self.now()) - self._beaten >= BEAT_EVERY:
            self.register.beat(self.name, self.version, now)
            self.register.forget(now - FORGET_AFTER)
            self._beaten = now
