"""Applies a plan: lanes side by side, and back in reverse order when a step fails."""

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
    """One lane's progress: what it began, in order, and what stopped it."""

    begun: list[Step] = field(default_factory=list)
    error: DeployError | None = None


class _Crew:
    """Works on lanes side by side, while the main thread listens for the operator.

    An interrupt is only noted down when it comes, so that it can neither cut a revert short nor
    get lost between two stages. Of all queues only `SimpleQueue` bears that a signal comes in the
    middle of its own use.
    """

    def __init__(self, width: int) -> None:
        self.pool = ThreadPoolExecutor(max_workers=width, thread_name_prefix="lane")
        self._happenings: SimpleQueue[Future[None] | None] = SimpleQueue()

    def interrupt(self) -> None:
        """Note an interrupt down."""
        self._happenings.put(None)

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt came while nothing was at work."""
        return not self._happenings.empty()

    def work(
        self,
        tasks: Sequence[Callable[[], None]],
        *,
        ended: Callable[[], None] = lambda: None,
        interrupted: Callable[[], None],
    ) -> bool:
        """Do all tasks, whatever the operator types; returns whether they interrupted."""
        for task in tasks:
            self.pool.submit(task).add_done_callback(self._happenings.put)
        pending, interrupt = len(tasks), False
        while pending:
            happening = self._happenings.get()
            if happening is None:
                interrupt = True
                interrupted()
            else:
                pending -= 1
                happening.result()
                ended()
        return interrupt


def execute(plan: Plan, run: Run) -> None:
    """Apply every step of `plan`; `run.progress` tells how it goes.

    Raises `ReleaseFailed` (or `HostUnreachable` where that was the cause) once everything applied
    has been reverted, `RevertFailed` where a revert failed on a host that does answer,
    `KeyboardInterrupt` after reverting when the operator interrupted, and `Locked`, with nothing
    reverted, where another run took the lock over. Once the release is live and verified, an
    interrupt comes too late: what is left to tidy is done all the same.
    """
    begun: list[list[_Lane]] = []
    crew = _Crew(max((len(stage.lanes) for stage in plan.stages), default=1))
    with interrupts.answered(by=crew.interrupt), crew.pool:
        for stage in plan.stages:
            run.events.emit("stage-started", stage.name)
            started = time.monotonic()
            lanes = [_Lane() for _ in stage.lanes]
            begun.append(lanes)
            interrupt = _run_stage(stage, lanes, run, crew)
            failures = [lane.error for lane in lanes if lane.error]
            if failures or interrupt:
                # What failed may have failed because a successor is at work: never revert its work.
                run.renew()
            if run.lost.is_set():
                raise Locked(
                    "another run has taken the lock over, as this one gave no sign of life for too "
                    "long; it stopped where it was and took nothing back",
                    hint=f"look with `invoke status --env={run.environment.name}`, and run the "
                    "same command again once the other one has ended: it continues from there",
                )
            if stage.on_failure == "report":
                run.progress.leftovers.extend(failures)
            elif failures or interrupt:
                _take_back(begun, run, crew, failures, interrupt)
            run.events.emit(
                "stage-finished", stage.name, data={"seconds": time.monotonic() - started}
            )


def _run_stage(stage: Stage, lanes: Sequence[_Lane], run: Run, crew: _Crew) -> bool:
    """Run a stage's lanes; returns whether the operator interrupted it, or before it."""
    taken_back = stage.on_failure == "revert"
    if taken_back and crew.interrupted:
        run.cancelled.set()

    def stop_others() -> None:
        if taken_back and any(lane.error for lane in lanes):
            run.cancelled.set()

    def stop_all() -> None:
        if not taken_back:
            words = "interrupted too late: the release is live and verified; tidying up, then done"
            run.events.emit("warning", words)
            return
        run.cancelled.set()
        run.events.emit("warning", "interrupted: stopping the running steps, then going back")

    tasks = [
        partial(_run_lane, steps, lane, run) for steps, lane in zip(stage.lanes, lanes, strict=True)
    ]
    return crew.work(tasks, ended=stop_others, interrupted=stop_all)


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
        except Exception as error:  # a defect of ours must still revert what was applied
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


def _take_back(
    begun: list[list[_Lane]],
    run: Run,
    crew: _Crew,
    failures: list[DeployError],
    interrupt: bool,
) -> None:
    """Revert stage by stage, newest first, then raise what describes the end of the run."""
    run.cancelled.clear()
    run.events.emit("revert-started", "taking back what was applied")
    broken: list[DeployError] = []

    def insist() -> None:
        run.events.emit("warning", "still going back: traffic is safe only when this has ended")

    for lanes in reversed(begun):
        tasks = [partial(_revert_lane, lane, run, broken) for lane in lanes if lane.begun]
        interrupt = crew.work(tasks, interrupted=insist) or interrupt
    causes = [error for error in failures if not isinstance(error, Interrupted)]
    lost = [error for error in broken if not isinstance(error, HostUnreachable)]
    if lost:
        raise RevertFailed(
            _join("the release failed and going back failed too", [*causes, *lost]),
            hint=f"look with `invoke status --env={run.environment.name}`, repair the host named "
            "above, then run the same command again: it continues from what is there",
            host=lost[0].host,
        )
    run.events.emit("revert-finished", "traffic is on the release before")
    gone = [e for e in [*causes, *broken] if isinstance(e, HostUnreachable)]
    if gone:
        raise HostUnreachable(
            _join("a host could not be reached; the others are on the release before", gone),
            hint=gone[0].hint
            or f"when {gone[0].host} answers again, run the same command again: it converges",
            host=gone[0].host,
        )
    if interrupt:
        raise KeyboardInterrupt
    first = causes[0] if causes else DeployError("stopped")
    before = "the release before serves" if run.previous else "nothing served before"
    raise ReleaseFailed(
        _join(f"the release failed and was taken back; {before}", causes),
        hint=first.hint,
        host=first.host,
    )


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
        except Exception as error:  # the reverts before this one must still run
            broken.append(DeployError(f"{type(error).__name__}: {error}", host=step.host))
            run.events.emit("revert-failed", str(error), **where)
