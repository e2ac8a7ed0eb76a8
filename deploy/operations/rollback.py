"""`invoke rollback`: list the earlier releases, and make one of them live again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.operations.candidates import Candidate, find_candidate, find_candidate_on_hosts
from deploy.operations.data_loss import data_loss_refused, find_data_loss
from deploy.operations.host_session import HostSession, open_session
from deploy.operations.planned_run import Result, plan_and_apply
from deploy.planning.schema_changes import Options
from deploy.planning.strategies import choose_strategy
from deploy.secrets import Secrets, load_secrets
from deploy.state.release import Version

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.execute.plan import Plan
    from deploy.state.facts import Facts
    from deploy.state.journal import Record

Source = Literal["container", "image", "registry"]


@dataclass(frozen=True)
class RollbackTarget:
    """A release that was or is live.

    `source` is the fastest source that every host has: the stopped container, the image, or else
    the registry.
    """

    record: Record
    source: Source
    live: bool


def find_rollback_targets(facts: Facts) -> tuple[RollbackTarget, ...]:
    """Return the releases that were live, newest first, each digest once. Pure."""
    history = [record for record in reversed(facts.history) if record.live]
    seen: dict[str, RollbackTarget] = {}
    for record in history:
        if record.digest not in seen:
            live = record is history[0]
            seen[record.digest] = RollbackTarget(record, _source(facts, record.digest), live)
    return tuple(seen.values())


def list_rollback_targets(name: str, events: Events) -> tuple[RollbackTarget, ...]:
    """Observe the hosts of an environment and return its rollback targets."""
    with open_session(load_environment(name), events) as session:
        session.require_all()
        return find_rollback_targets(session.facts())


def roll_back(
    name: str,
    version: str,
    events: Events,
    *,
    confirm: Callable[[str], None] | None,
    hosts: Sequence[str] = (),
    dry_run: bool = False,
    with_downgrade: bool = False,
    allow_data_loss: bool = False,
) -> Result:
    """Make an earlier release live again, by its version or digest. Applies no migration.

    `with_downgrade` reverts the migrations that the release does not support. `confirm` gets the
    question, with the data that the downgrade deletes, and raises if the operator declines. Without
    `confirm` the rollback needs `allow_data_loss` to delete data. Raises `UsageError` if the
    version was never live here, and `GateRefused` if it does not support the schema or data loss
    is not allowed.
    """
    options = Options(downgrade=with_downgrade)
    started = time.monotonic()
    environment = load_environment(name, hosts=hosts)
    strategy = choose_strategy(environment)
    secrets = load_secrets(environment)
    events.redact = secrets.redact
    with open_session(environment, events) as session:
        session.require_all()

        def choose(facts: Facts) -> Candidate:
            target = choose_target(find_rollback_targets(facts), version, environment.name)
            return _candidate(session, secrets, facts, target)

        def refuse_data_loss(facts: Facts, made: Plan) -> None:
            losses = () if allow_data_loss else find_data_loss(session, facts, made)
            if losses:
                raise data_loss_refused("rollback", losses, made)

        if confirm and not dry_run:
            # Ask before taking the lock: other runs must not wait for the answer.
            facts = session.facts(secrets)
            release = choose(facts).release
            made = strategy.plan(environment, release, facts, kind="rollback", options=options)
            if not made.empty:
                losses = find_data_loss(session, facts, made)
                confirm("\n".join([*losses, _question(environment, facts, version)]))
        plan, applied = plan_and_apply(
            session,
            secrets,
            choose,
            f"rollback to {version}",
            kind="rollback",
            dry_run=dry_run,
            options=options,
            gate=None if confirm else refuse_data_loss,
        )
    return Result(plan, environment, applied, time.monotonic() - started)


def choose_target(found: Sequence[RollbackTarget], version: str, name: str) -> RollbackTarget:
    """Return the newest target with this version or digest. Pure.

    A rebuilt commit has the same version under another digest. Raises `UsageError`, which lists
    the known versions, if there is none.
    """
    wanted = version if version.startswith("sha256:") else str(Version(version))
    for target in found:
        if wanted in (target.record.version, target.record.digest):
            return target
    known = ", ".join(target.record.version for target in found) or "none"
    raise UsageError(
        f"{version} was never live in {name}",
        hint=f"releases that were live: {known}\n"
        f"to deploy it for the first time: invoke deploy --env={name} --version={version}",
    )


def _candidate(
    session: HostSession, secrets: Secrets, facts: Facts, target: RollbackTarget
) -> Candidate:
    repository, digest = session.environment.image.repository, target.record.digest
    return find_candidate_on_hosts(facts, repository, digest) or find_candidate(
        session, secrets, digest
    )


def _question(environment: Environment, facts: Facts, version: str) -> str:
    found = find_rollback_targets(facts)
    record = choose_target(found, version, environment.name).record
    live = next((each.record.version for each in found if each.live), "no release")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.finished))
    return (
        f"Roll {environment.name} ({environment.domain}) back from {live} to {record.version} "
        f"(commit {record.revision[:12]}, made live {when})?"
    )


def _source(facts: Facts, digest: str) -> Source:
    web = [host for host in facts.hosts.values() if "web" in host.roles]
    if web and all(
        any(found.digest == digest and found.role == "web" for found in host.containers)
        for host in web
    ):
        return "container"
    if all(host.holds(digest) for host in facts.hosts.values()):
        return "image"
    return "registry"
