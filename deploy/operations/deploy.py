"""`invoke deploy`: from a checkout or a version to a release that serves."""

from __future__ import annotations

import secrets as entropy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from deploy.environment.model import load_environment
from deploy.errors import DeployError, HostUnreachable, Locked, ReleaseFailed, RevertFailed
from deploy.events import Events
from deploy.execute.executor import execute
from deploy.execute.run import Run
from deploy.observe import survey
from deploy.operations.session import Session, open_session
from deploy.operations.source import Candidate, build, find
from deploy.planning import preflight
from deploy.planning.schema_changes import Options
from deploy.planning.strategies import choose_strategy
from deploy.planning.strategy import DEFAULTS
from deploy.secrets import Secrets, load_secrets
from deploy.state import journal, lock

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.execute.plan import Plan
    from deploy.state.facts import Facts


Kind = Literal["deploy", "rollback"]
Planner = Callable[["Facts", Candidate], "Plan"]
Gate = Callable[["Facts", "Plan"], None]


@dataclass(frozen=True)
class Result:
    """How a request ended: the plan, whether it was applied, and in how many seconds."""

    plan: Plan
    environment: Environment
    applied: bool
    seconds: float


def deploy(
    name: str,
    events: Events,
    *,
    version: str | None = None,
    dry_run: bool = False,
    hosts: Sequence[str] = (),
    options: Options = DEFAULTS,
) -> Result:
    """Bring a release to an environment: `version` from its registry, or this checkout built.

    Raises what `deploy.errors` names; nothing is changed before the plan is made and, once it is,
    a failure takes everything back.
    """
    started = time.monotonic()
    environment = load_environment(name, hosts=hosts)
    choose_strategy(environment)  # refuses an unknown one before anything is built
    secrets = load_secrets(environment)
    events.redact = secrets.redact
    with open_session(environment, events) as session:
        session.require_all()
        if version is None:
            candidate = build(environment, secrets, events)
        else:
            candidate = find(session, secrets, version)
        what = f"deploy {candidate.release.version}"
        plan, applied = converge(
            session, secrets, lambda facts: candidate, what, dry_run=dry_run, options=options
        )
    return Result(plan, environment, applied, time.monotonic() - started)


def converge(
    session: Session,
    secrets: Secrets,
    choose: Callable[[Facts], Candidate],
    what: str,
    *,
    kind: Kind = "deploy",
    dry_run: bool = False,
    options: Options = DEFAULTS,
    planner: Planner | None = None,
    gate: Gate | None = None,
) -> tuple[Plan, bool]:
    """Choose from the facts, plan and apply, under the environment's lock; a dry run takes none.

    `what` tells others who find the lock what is going on. Plans a swap, unless another `planner`
    is given. `gate` raises where a plan must not be applied.
    """
    make = planner or partial(_plan_swap, session, kind, options)
    environment, events = session.environment, session.events
    if dry_run:
        facts = session.facts(secrets)
        return _announce(session, make(facts, choose(facts))), False
    if session.lock_host is None:
        raise HostUnreachable(f"{environment.lock_host.name}: it holds the lock and is away")
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{entropy.token_hex(2)}"
    holder = lock.Holder.here(run_id, what)
    with lock.hold(session.lock_host, environment.folder, holder) as lease:
        if lease.predecessor is not None:
            events.emit("warning", f"took over the lock of a dead run: {lease.predecessor.who}")
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
        lease.entrust(run.record("abandoned", "it ended without a word"))
        _execute(plan, run)
    return plan, True


def _plan_swap(
    session: Session, kind: Kind, options: Options, facts: Facts, candidate: Candidate
) -> Plan:
    needed = [
        found for found in facts.hosts.values() if not found.holds(candidate.release.image.digest)
    ]
    preflight.check(
        session.environment, facts, candidate.platforms, candidate.size if needed else 0
    )
    strategy = choose_strategy(session.environment)
    return strategy.plan(session.environment, candidate.release, facts, kind=kind, options=options)


def _announce(session: Session, plan: Plan) -> Plan:
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
            "interrupted: everything applied was taken back; the release before serves"
        ) from None
    except DeployError as error:
        outcomes = {RevertFailed: "failed", Locked: "abandoned"}
        _record(run, outcomes.get(type(error), "reverted"), error.message)
        raise
    if run.progress.leftovers:
        raise _incomplete(run)


def _incomplete(run: Run) -> DeployError:
    """The release is live and verified, but something could not be tidied."""
    errors = run.progress.leftovers
    gone = next((error for error in errors if isinstance(error, HostUnreachable)), None)
    kind = HostUnreachable if gone else RevertFailed
    return kind(
        f"{run.release.version} is live and verified, but not everything could be tidied up:\n"
        + "\n".join(f"- {error.message}" for error in errors),
        hint="run the same command again: it completes what is missing",
        host=(gone or errors[0]).host,
    )


def _record(run: Run, outcome: str, error: str) -> None:
    """Write how the run ended on every host that answers."""
    record = run.record(outcome, error)
    for name, result in survey.side_by_side(
        list(run.hosts.values()),
        lambda host: journal.append(host, run.environment.folder, record),
    ).items():
        if isinstance(result, DeployError):
            run.events.emit("warning", f"its journal could not be written: {name}", host=name)
