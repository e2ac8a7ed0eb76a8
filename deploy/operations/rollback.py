"""`invoke rollback`: what can be gone back to, and going there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy.environment.model import load_environment
from deploy.errors import GateRefused, UsageError
from deploy.events import Events
from deploy.operations.deploy import Result, converge
from deploy.operations.losses import find_losses
from deploy.operations.session import Session, open_session
from deploy.operations.source import Candidate, find, find_on_hosts
from deploy.planning.schema_changes import Options
from deploy.planning.strategies import choose_strategy
from deploy.secrets import Secrets, load_secrets
from deploy.state.release import Version

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.execute.plan import Plan
    from deploy.state.facts import Facts
    from deploy.state.journal import Record

Standing = Literal["container", "image", "registry"]


@dataclass(frozen=True)
class Target:
    """A release that was live before. `standing` is the quickest way back to it on every host:
    its stopped container, its image, or the registry."""

    record: Record
    standing: Standing
    live: bool


def targets(facts: Facts) -> tuple[Target, ...]:
    """What was live, newest first, each digest once; the one that is live now is marked."""
    history = [record for record in reversed(facts.history) if record.live]
    seen: dict[str, Target] = {}
    for record in history:
        if record.digest not in seen:
            live = record is history[0]
            seen[record.digest] = Target(record, _standing(facts, record.digest), live)
    return tuple(seen.values())


def listing(name: str, events: Events) -> tuple[Target, ...]:
    """The targets of an environment, as its hosts know them."""
    with open_session(load_environment(name), events) as session:
        session.require_all()
        return targets(session.facts())


def rollback(
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
    """Go back to a release that was live before; nothing is migrated.

    `with_downgrade` undoes the migrations that the release cannot run on. `confirm` is asked with
    the question, which tells what that loses, and raises where the answer is no; None means yes,
    but to a loss only with `allow_data_loss`. Raises UsageError for a version that was never live
    here, and GateRefused where it cannot run on the schema.
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
            target = _choose(targets(facts), version, environment.name)
            return _candidate(session, secrets, facts, target)

        def refuse_losses(facts: Facts, made: Plan) -> None:
            losses = () if allow_data_loss else find_losses(session, facts, made)
            if losses:
                raise GateRefused(
                    "going back loses:\n" + "\n".join(f"- {line}" for line in losses),
                    hint="--allow-data-loss says yes to that; the backup that is made first has it",
                )

        if confirm and not dry_run:
            # Before the lock is taken: nobody else shall wait for an answer.
            facts = session.facts(secrets)
            release = choose(facts).release
            made = strategy.plan(environment, release, facts, kind="rollback", options=options)
            if not made.empty:
                losses = find_losses(session, facts, made)
                confirm("\n".join([*losses, _question(environment, facts, version)]))
        plan, applied = converge(
            session,
            secrets,
            choose,
            f"rollback to {version}",
            kind="rollback",
            dry_run=dry_run,
            options=options,
            gate=None if confirm else refuse_losses,
        )
    return Result(plan, environment, applied, time.monotonic() - started)


def _choose(found: Sequence[Target], version: str, name: str) -> Target:
    # Two builds of a commit carry one version; a digest says which is meant.
    wanted = version if version.startswith("sha256:") else str(Version(version))
    for target in found:
        if wanted in (target.record.version, target.record.digest):
            return target
    known = ", ".join(target.record.version for target in found) or "none yet"
    raise UsageError(
        f"{version} was never live in {name}",
        hint=f"releases that were: {known}\n`invoke deploy --version={version}` brings a new one",
    )


def _candidate(session: Session, secrets: Secrets, facts: Facts, target: Target) -> Candidate:
    repository, digest = session.environment.image.repository, target.record.digest
    return find_on_hosts(facts, repository, digest) or find(session, secrets, digest)


def _question(environment: Environment, facts: Facts, version: str) -> str:
    found = targets(facts)
    record = _choose(found, version, environment.name).record
    now = next((each.record.version for each in found if each.live), "nothing")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.finished))
    return (
        f"Roll {environment.name} ({environment.domain}) back from {now} to {record.version} "
        f"(commit {record.revision[:12]}, live since {when})?"
    )


def _standing(facts: Facts, digest: str) -> Standing:
    web = [host for host in facts.hosts.values() if "web" in host.roles]
    if web and all(
        any(found.digest == digest and found.role == "web" for found in host.containers)
        for host in web
    ):
        return "container"
    if all(host.holds(digest) for host in facts.hosts.values()):
        return "image"
    return "registry"
