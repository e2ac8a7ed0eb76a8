"""Plan a change and apply it under the lock of the environment."""

from __future__ import annotations

import secrets as entropy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from deploy.errors import DeployError, HostUnreachable, Locked, ReleaseFailed, RevertFailed
from deploy.execute.executor import execute
from deploy.execute.run import Run
from deploy.observe import survey
from deploy.planning import preflight
from deploy.planning.schema_changes import Options
from deploy.planning.strategies import choose_strategy
from deploy.planning.strategy import DEFAULTS
from deploy.state import journal, lock

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.execute.plan import Plan
    from deploy.operations.candidates import Candidate
    from deploy.operations.host_session import HostSession
    from deploy.secrets import Secrets
    from deploy.state.facts import Facts


Kind = Literal["deploy", "rollback"]
Planner = Callable[["Facts", "Candidate"], "Plan"]
Gate = Callable[["Facts", "Plan"], None]


@dataclass(frozen=True)
class Result:
    """The outcome of an operation: its plan, whether it was applied, and the seconds it took."""

    plan: Plan
    environment: Environment
    applied: bool
    seconds: float


def plan_and_apply(
    session: HostSession,
    secrets: Secrets,
    choose: Callable[[Facts], Candidate],
    purpose: str,
    *,
    kind: Kind = "deploy",
    dry_run: bool = False,
    options: Options = DEFAULTS,
    planner: Planner | None = None,
    gate: Gate | None = None,
) -> tuple[Plan, bool]:
    """Choose a release from the facts, plan and apply it; return the plan and whether it ran.

    Holds the lock of the environment with `purpose` as its description. A dry run only plans and
    takes no lock. The environment's strategy makes the plan unless a `planner` is given. `gate`
    raises if a plan must not be applied. Raises `Locked` if another run holds the lock, and the
    error of the execution after it reverted the applied steps.
    """
    make = planner or partial(_plan_by_strategy, session, kind, options)
    environment, events = session.environment, session.events
    if dry_run:
        facts = session.facts(secrets)
        return _announce(session, make(facts, choose(facts))), False
    if session.lock_host is None:
        name = environment.lock_host.name
        raise HostUnreachable(
            f"{name} is unreachable, and it holds the lock of {environment.name}",
            hint="restore the connection, then run the same command again",
            host=name,
        )
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{entropy.token_hex(2)}"
    holder = lock.Holder.here(run_id, purpose)
    with lock.hold(session.lock_host, environment.folder, holder) as lease:
        if lease.predecessor is not None:
            events.emit("warning", f"took over the stale lock of {lease.predecessor.who}")
        facts = session.settled_facts(secrets, lease.require)
        candidate = choose(facts)
        plan = _announce(session, make(facts, candidate))
        if plan.empty:
            return plan, False
        if gate is not None:
            gate(facts, plan)
        live = [record for record in facts.history if record.live]
        run = Run(
            id=run_id,
            kind=kind,
            environment=environment,
            hosts=session.hosts,
            release=candidate.release,
            secrets=secrets,
            events=events,
            plan_hash=plan.hash,
            requested_by=holder.who,
            previous=live[-1] if live else None,
            allowed=options.names,
            generations={name: found.secrets or "" for name, found in facts.hosts.items()},
            lost=lease.lost,
            renew=lease.renew,
            confirm=lease.confirm,
        )
        # The next holder of the lock writes this record if this process is killed.
        lease.entrust(run.record("abandoned", "the run ended without an outcome"))
        _execute(plan, run)
    return plan, True


def _plan_by_strategy(
    session: HostSession, kind: Kind, options: Options, facts: Facts, candidate: Candidate
) -> Plan:
    needed = [
        found for found in facts.hosts.values() if not found.holds(candidate.release.image.digest)
    ]
    preflight.check(
        session.environment, facts, candidate.platforms, candidate.size if needed else 0
    )
    strategy = choose_strategy(session.environment)
    return strategy.plan(session.environment, candidate.release, facts, kind=kind, options=options)


def _announce(session: HostSession, plan: Plan) -> Plan:
    session.events.emit(
        "plan",
        f"{len(list(plan.steps()))} steps" if not plan.empty else "nothing to do",
        data={"plan": plan.as_json(), "hash": plan.hash, "reasons": list(plan.reasons)},
    )
    return plan


def _execute(plan: Plan, run: Run) -> None:
    try:
        execute(plan, run)
    except KeyboardInterrupt:
        _record(run, "interrupted", "interrupted by the operator")
        raise ReleaseFailed(
            "interrupted: every applied step was reverted",
            hint=f"invoke status --env={run.environment.name}",
        ) from None
    except DeployError as error:
        outcomes = {RevertFailed: "failed", Locked: "abandoned"}
        _record(run, outcomes.get(type(error), "reverted"), error.message)
        raise
    if run.progress.leftovers:
        raise _incomplete(run)


def _incomplete(run: Run) -> DeployError:
    """The error for a run whose release is live and verified, but whose last stages failed."""
    errors = run.progress.leftovers
    unreachable = next((error for error in errors if isinstance(error, HostUnreachable)), None)
    kind = HostUnreachable if unreachable else RevertFailed
    return kind(
        f"{run.release.version} is live and verified, but later steps failed:\n"
        + "\n".join(f"- {error.message}" for error in errors),
        hint="run the same command again to complete them",
        host=(unreachable or errors[0]).host,
    )


def _record(run: Run, outcome: str, error: str) -> None:
    """Append the outcome of the run to the journal of every reachable host."""
    record = run.record(outcome, error)
    for name, result in survey.call_on_all(
        list(run.hosts.values()),
        lambda host: journal.append(host, run.environment.folder, record),
    ).items():
        if isinstance(result, DeployError):
            run.events.emit(
                "warning", f"cannot write the journal on {name}: {result.message}", host=name
            )
