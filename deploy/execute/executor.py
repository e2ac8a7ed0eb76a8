"""Applies a plan, and reverts it in reverse order if a step fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from deploy.errors import DeployError, HostUnreachable, Locked, ReleaseFailed, RevertFailed
from deploy.execute import interrupts
from deploy.execute.plan import Plan, Stage, Step
from deploy.execute.run import Interrupted, Run


@dataclass
class _Lane:
    """A lane's progress: the steps that it began, in order, and the error that stopped it."""

    begun: list[Step] = field(default_factory=list)
    error: DeployError | None = None


class _LanePool:
    """Runs lanes at the same time, while the main thread waits for their ends and for interrupts.

    An interrupt is only queued when it comes, so that it neither cuts a revert short nor gets lost
    between two stages. `SimpleQueue` is the only queue that a signal handler may use while the
    interrupted thread uses it too.
    """

    def __init__(self, width: int) -> None:
        self.threads = ThreadPoolExecutor(max_workers=width, thread_name_prefix="lane")
        self._occurrences: SimpleQueue[Future[None] | None] = SimpleQueue()

    def interrupt(self) -> None:
        """Queue an interrupt; safe in a signal handler."""
        self._occurrences.put(None)

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt came between two calls of `work`."""
        return not self._occurrences.empty()

    def work(
        self,
        tasks: Sequence[Callable[[], None]],
        *,
        ended: Callable[[], None] = lambda: None,
        interrupted: Callable[[], None],
    ) -> bool:
        """Run all tasks to their ends; return whether an interrupt came meanwhile.

        `ended` is called after each task, `interrupted` after each interrupt.
        """
        for task in tasks:
            self.threads.submit(task).add_done_callback(self._occurrences.put)
        pending, interrupt = len(tasks), False
        while pending:
            occurrence = self._occurrences.get()
            if occurrence is None:
                interrupt = True
                interrupted()
            else:
                pending -= 1
                occurrence.result()
                ended()
        return interrupt


def execute(plan: Plan, run: Run) -> None:
    """Apply every step of `plan`, and keep `run.progress` up to date.

    If a step fails or the operator interrupts, all applied steps are reverted. Then raises
    `RevertFailed` if a revert failed on a reachable host, `HostUnreachable` if a host is the cause,
    `KeyboardInterrupt` after an interrupt, and `ReleaseFailed` otherwise. Raises `Locked`, without
    a revert, if another run took over the lock. Once the release is live and verified, an interrupt
    no longer stops the run.
    """
    begun: list[list[_Lane]] = []
    pool = _LanePool(max((len(stage.lanes) for stage in plan.stages), default=1))
    with interrupts.handle(by=pool.interrupt), pool.threads:
        for stage in plan.stages:
            run.events.emit("stage-started", stage.name)
            started = time.monotonic()
            lanes = [_Lane() for _ in stage.lanes]
            begun.append(lanes)
            interrupt = _run_stage(stage, lanes, run, pool)
            failures = [lane.error for lane in lanes if lane.error]
            if failures or interrupt:
                # A successor may have caused the failure, and its work must not be reverted.
                run.renew()
            if run.lost.is_set():
                raise Locked(
                    "the lock of this run was taken over; this run stopped and reverted nothing",
                    hint=f"see `invoke status --env={run.environment.name}`, and run the same "
                    "command again once the other run has ended: it continues from there",
                )
            if stage.on_failure == "report":
                run.progress.leftovers.extend(failures)
            elif failures or interrupt:
                _revert(begun, run, pool, failures, interrupt)
            run.events.emit(
                "stage-finished", stage.name, data={"seconds": time.monotonic() - started}
            )


def _run_stage(stage: Stage, lanes: Sequence[_Lane], run: Run, pool: _LanePool) -> bool:
    """Run a stage's lanes; return whether an interrupt came during it, or since the last stage."""
    reverting = stage.on_failure == "revert"
    if reverting and pool.interrupted:
        run.cancelled.set()

    def stop_others() -> None:
        if reverting and any(lane.error for lane in lanes):
            run.cancelled.set()

    def stop_all() -> None:
        if not reverting:
            text = "interrupted too late: the release is live and verified; completing the run"
            run.events.emit("warning", text)
            return
        run.cancelled.set()
        run.events.emit("warning", "interrupted: stopping the running steps, then reverting")

    tasks = [
        partial(_run_lane, steps, lane, run) for steps, lane in zip(stage.lanes, lanes, strict=True)
    ]
    return pool.work(tasks, ended=stop_others, interrupted=stop_all)


def _run_lane(steps: Sequence[Step], lane: _Lane, run: Run) -> None:
    for step in steps:
        try:
            run.confirm()
            run.check_cancelled()
            _run_step(step, lane, run)
        except DeployError as error:
            lane.error = error
            if not isinstance(error, Interrupted):
                run.events.emit("step-failed", error.message, host=step.host, step=step.kind)
            return
        except Exception as error:  # a bug must not prevent the revert
            lane.error = DeployError(f"{type(error).__name__}: {error}", host=step.host)
            run.events.emit("step-failed", str(lane.error), host=step.host, step=step.kind)
            return


def _run_step(step: Step, lane: _Lane, run: Run) -> None:
    where = {"host": step.host, "step": step.kind}
    run.events.emit("step-started", step.describe(), **where)
    started = time.time()
    if step.done(run):
        run.events.emit("step-skipped", step.describe(), **where)
        return
    lane.begun.append(step)
    step.apply(run)
    seconds = round(time.time() - started, 3)
    run.progress.steps.append({**where, "started": round(started, 3), "seconds": seconds})
    run.events.emit("step-finished", step.describe(), **where, data={"seconds": seconds})


def _revert(
    begun: list[list[_Lane]],
    run: Run,
    pool: _LanePool,
    failures: list[DeployError],
    interrupt: bool,
) -> None:
    """Revert stage by stage, newest first, then raise the error that ends the run."""
    run.cancelled.clear()
    run.events.emit("revert-started", "reverting the applied steps")
    broken: list[DeployError] = []

    def insist() -> None:
        run.events.emit("warning", "still reverting: an interrupt does not stop the revert")

    for lanes in reversed(begun):
        tasks = [partial(_revert_lane, lane, run, broken) for lane in lanes if lane.begun]
        interrupt = pool.work(tasks, interrupted=insist) or interrupt
    causes = [error for error in failures if not isinstance(error, Interrupted)]
    lost = [error for error in broken if not isinstance(error, HostUnreachable)]
    if lost:
        raise RevertFailed(
            _join("the release failed, and its revert failed too", [*causes, *lost]),
            hint=f"see `invoke status --env={run.environment.name}`, repair the host named above, "
            "then run the same command again: it continues from the current state",
            host=lost[0].host,
        )
    run.events.emit("revert-finished", _describe_traffic(run))
    missing = [e for e in [*causes, *broken] if isinstance(e, HostUnreachable)]
    if missing:
        raise HostUnreachable(
            _join("a host is unreachable; the other hosts were reverted", missing),
            hint=missing[0].hint
            or f"when {missing[0].host} answers again, run the same command again: it converges",
            host=missing[0].host,
        )
    if interrupt:
        raise KeyboardInterrupt
    first = causes[0] if causes else DeployError("stopped")
    raise ReleaseFailed(
        _join(f"the release failed and was reverted; {_describe_traffic(run)}", causes),
        hint=first.hint,
        host=first.host,
    )


def _describe_traffic(run: Run) -> str:
    return "traffic is on the previous release" if run.previous else "there is no previous release"


def _join(summary: str, errors: Sequence[DeployError]) -> str:
    return "\n".join([summary, *dict.fromkeys(error.message for error in errors)])


def _revert_lane(lane: _Lane, run: Run, broken: list[DeployError]) -> None:
    for step in reversed(lane.begun):
        where = {"host": step.host, "step": step.kind}
        try:
            step.revert(run)
        except DeployError as error:
            broken.append(error)
            run.events.emit("revert-failed", error.message, **where)
        except Exception as error:  # the remaining reverts must still run
            broken.append(DeployError(f"{type(error).__name__}: {error}", host=step.host))
            run.events.emit("revert-failed", str(error), **where)
