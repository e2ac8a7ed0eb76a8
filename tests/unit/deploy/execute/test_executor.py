"""The executor, with steps that only record their calls."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from deploy.errors import DeployError, HostUnreachable, Locked, ReleaseFailed, RevertFailed
from deploy.events import Events
from deploy.execute.executor import execute
from deploy.execute.plan import Plan, Stage, Step
from deploy.execute.run import Run


@dataclass(frozen=True)
class Note(Step):
    """Records its name, and fails as configured."""

    kind: ClassVar[str] = "note"
    name: str
    fails: str = ""
    revert_fails: str = ""
    skip: bool = False

    def describe(self):
        return self.name

    def done(self, run):
        return self.skip

    def apply(self, run):
        run.log.append(f"+{self.name}")
        fail(self.fails, self.host)

    def revert(self, run):
        run.log.append(f"-{self.name}")
        fail(self.revert_fails, self.host)


@dataclass(frozen=True)
class WaitForCancel(Note):
    """Waits until the run is cancelled."""

    def apply(self, run):
        super().apply(run)
        assert run.cancelled.wait(30), "the run was not cancelled"
        run.check_cancelled()


@dataclass(frozen=True)
class Interrupt(Note):
    """Interrupts the run as Ctrl-C does."""

    def apply(self, run):
        super().apply(run)
        os.kill(os.getpid(), signal.SIGINT)


@dataclass(frozen=True)
class InterruptItself(WaitForCancel, Interrupt):
    """Sends SIGINT while it runs, so that no other step runs in between."""


def fail(how, host):
    if how == "unreachable":
        raise HostUnreachable(f"{host}: gone", host=host)
    if how == "defect":
        raise ZeroDivisionError("a defect")
    if how:
        raise DeployError(how, host=host, hint="mend it")


@pytest.fixture
def run():
    seen = []
    made = Run(
        id="r",
        kind="deploy",
        environment=SimpleNamespace(name="test"),
        hosts={},
        release=None,
        secrets=None,
        events=Events(seen.append),
        plan_hash="",
        requested_by="test",
    )
    made.log = []
    made.seen = seen
    return made


def plan(*stages):
    return Plan("deploy", "test", "1.0.0", "sha256:0", tuple(stages))


def stage(*lanes, on_failure="revert"):
    return Stage("stage", tuple(tuple(lane) for lane in lanes), on_failure)


def test_stages_and_steps_of_a_lane_run_in_order(run):
    execute(plan(stage([Note("h", "a"), Note("h", "b")]), stage([Note("h", "c")])), run)
    assert run.log == ["+a", "+b", "+c"]
    assert [step["step"] for step in run.progress.steps] == ["note"] * 3


def test_completed_step_is_neither_applied_nor_reverted(run):
    with pytest.raises(ReleaseFailed):
        execute(plan(stage([Note("h", "a", skip=True), Note("h", "b", fails="no")])), run)
    assert run.log == ["+b", "-b"]


def test_failure_reverts_started_steps_newest_first(run):
    with pytest.raises(ReleaseFailed) as caught:
        execute(
            plan(stage([Note("h", "a")]), stage([Note("h", "b"), Note("h", "c", "broken")])), run
        )
    assert run.log == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert "broken" in caught.value.message
    assert (caught.value.exit_code, caught.value.hint, caught.value.host) == (5, "mend it", "h")


def test_failure_on_one_host_reverts_the_others(run):
    with pytest.raises(ReleaseFailed):
        lanes = [Note("one", "a", fails="broken")], [WaitForCancel("two", "b"), Note("two", "c")]
        execute(plan(stage(*lanes)), run)
    begun = {entry[1:] for entry in run.log if entry[0] == "+"}
    reverted = {entry[1:] for entry in run.log if entry[0] == "-"}
    assert "a" in begun and "c" not in begun
    assert begun == reverted


def test_unreachable_host_has_own_exit_code_and_reverts_the_others(run):
    lanes = [Note("one", "a")], [Note("two", "b", "unreachable", "unreachable")]
    with pytest.raises(HostUnreachable) as caught:
        execute(plan(stage(*lanes)), run)
    assert caught.value.exit_code == 7
    assert "-a" in run.log


def test_failing_revert_is_reported_and_other_reverts_continue(run):
    with pytest.raises(RevertFailed) as caught:
        steps = [Note("h", "a"), Note("h", "b", revert_fails="stuck"), Note("h", "c", "broken")]
        execute(plan(stage(steps)), run)
    assert caught.value.exit_code == 6
    assert run.log[-1] == "-a"
    assert "stuck" in caught.value.message and "broken" in caught.value.message


def test_exception_in_a_step_reverts_applied_steps(run):
    with pytest.raises(ReleaseFailed, match="ZeroDivisionError"):
        execute(plan(stage([Note("h", "a"), Note("h", "b", "defect")])), run)
    assert run.log == ["+a", "+b", "-b", "-a"]


def test_failure_in_finishing_stage_is_reported_and_reverts_nothing(run):
    made = plan(
        stage([Note("h", "a")]),
        stage([Note("h", "b", "untidy")], [Note("i", "c")], on_failure="report"),
        stage([Note("h", "d")]),
    )
    execute(made, run)
    assert set(run.log) == {"+a", "+b", "+c", "+d"}
    assert [error.message for error in run.progress.leftovers] == ["untidy"]


def test_interrupt_reverts_all_steps(run):
    steps = Note("h", "a"), Note("h", "b"), InterruptItself("h", "c"), Note("h", "d")
    with pytest.raises(KeyboardInterrupt):
        execute(plan(stage(steps)), run)
    assert run.log == ["+a", "+b", "+c", "-c", "-b", "-a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_between_stages_reverts_all_steps(run, number):
    def interrupt(event):
        if event.kind == "stage-finished":
            signal.raise_signal(number)

    run.events.listen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(plan(stage([Note("h", "a")]), stage([Note("h", "b")])), run)
    assert run.log == ["+a", "-a"]


def test_interrupt_during_revert_does_not_stop_it(run):
    def interrupt(event):
        if event.kind == "revert-started":
            signal.raise_signal(signal.SIGINT)

    run.events.listen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(plan(stage([Note("h", "a")]), stage([Note("h", "b", fails="broken")])), run)
    assert run.log == ["+a", "+b", "-b", "-a"]
    assert any("still reverting" in event.text for event in run.seen)


def test_interrupt_in_finishing_stage_reverts_nothing(run):
    steps = Interrupt("h", "a"), Note("h", "b")
    execute(
        plan(stage(steps, on_failure="report"), stage([Note("h", "c")], on_failure="report")), run
    )
    assert run.log == ["+a", "+b", "+c"]
    assert any("interrupted too late" in event.text for event in run.seen)


def test_signal_handlers_are_restored_after_the_plan(run):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    execute(plan(stage([Note("h", "a")])), run)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_that_lost_its_lock_stops_without_changes(run):
    @dataclass(frozen=True)
    class LoseTheLock(Note):
        def apply(self, run):
            run.log.append(f"+{self.name}")
            run.lost.set()

    with pytest.raises(Locked) as caught:
        execute(plan(stage([LoseTheLock("h", "a"), Note("h", "b")]), stage([Note("h", "c")])), run)
    assert caught.value.exit_code == 4
    assert run.log == ["+a"]


def test_resumed_run_checks_its_lock_before_each_step(run):
    run.confirm = run.lost.set
    with pytest.raises(Locked):
        execute(plan(stage([Note("h", "a")])), run)
    assert run.log == []


def test_failure_after_losing_the_lock_reverts_nothing(run):
    """The successor may be what made it fail; the heartbeat may not have noticed it yet."""
    run.renew = run.lost.set
    with pytest.raises(Locked):
        execute(plan(stage([Note("h", "a"), Note("h", "b", fails=True)])), run)
    assert run.log == ["+a", "+b"]
