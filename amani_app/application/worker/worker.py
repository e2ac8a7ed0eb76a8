"""The worker: rounds of jobs until it is told to stop."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from amani_app.application.common.queues import Going, always
from amani_app.application.common.readiness import CheckReadiness
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.workers import WorkerRegister

BEAT_EVERY = timedelta(seconds=10)
FORGET_AFTER = timedelta(hours=1)


class WorkerLog(t.Protocol):
    """Where the worker tells what it does."""

    def info(self, event: str, **fields: t.Any) -> t.Any:
        """An ordinary event."""

    def warning(self, event: str, **fields: t.Any) -> t.Any:
        """Something that a person may want to look at."""


class WorkerJob(t.Protocol):
    """A piece of work that is safe to run in many workers at once."""

    name: str

    def __call__(self, going: Going) -> int:
        """Do what is due while *going*; how many things were done."""


@dataclass
class Worker:
    """Runs *jobs* again and again, and says in the register that it lives."""

    name: str
    version: str
    register: WorkerRegister
    readiness: CheckReadiness
    jobs: t.Sequence[WorkerJob]
    log: WorkerLog
    now: t.Callable[[], datetime] = lambda: datetime.now(UTC)
    going: Going = always
    _beaten: datetime = datetime.min.replace(tzinfo=UTC)

    def run(self, rest: t.Callable[[], bool]) -> None:
        """Do a round, then *rest*, until that returns true.

        What is in hand is finished first. A database that is away or behind is waited for.
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
        """One beat, when it is due, and every job once."""
        verdict = self.readiness()
        if not verdict.ready:
            self.log.warning("worker.waiting", reason=verdict.reason)
            return
        try:
            self._beat()
            for job in self.jobs:
                self._do(job)
        except DatabaseUnavailable:
            self.log.warning("worker.waiting", reason="the database is not reachable")

    def _do(self, job: WorkerJob) -> None:
        try:
            if done := job(self.going):
                self.log.info("worker.job", job=job.name, done=done)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # What a job stumbled over is leased, and comes again later: it must not hold up the
            # other jobs, nor the rest of its own.
            self.log.warning("worker.job_failed", job=job.name, exc_info=error)

    def _beat(self) -> None:
        if (now := self.now()) - self._beaten >= BEAT_EVERY:
            self.register.beat(self.name, self.version, now)
            self.register.forget(now - FORGET_AFTER)
            self._beaten = now
