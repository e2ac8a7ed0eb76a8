"""The schema of an environment's database, moved without a release."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.errors import GateRefused, UsageError
from deploy.execute.plan import Plan, stage
from deploy.operations.deploy import Result, converge
from deploy.operations.losses import find_losses
from deploy.operations.session import open_session
from deploy.operations.source import find_on_hosts
from deploy.secrets import load_secrets
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade, Migrate

if TYPE_CHECKING:
    from deploy.events import Events
    from deploy.execute.plan import Step
    from deploy.operations.source import Candidate
    from deploy.state.facts import Facts


def move(
    name: str,
    to: str,
    events: Events,
    *,
    confirm: Callable[[str], None] | None,
    allow_data_loss: bool = False,
    dry_run: bool = False,
) -> Result:
    """Bring the database to a revision that the live release knows; to its head where `to` is
    empty. A backup comes first, as the environment's policy says.

    Back it goes only once `confirm` has been asked with what that loses; None means yes, but to a
    loss only with `allow_data_loss`. Raises `UsageError` for a revision that the release does not
    know.
    """
    started = time.monotonic()
    environment = load_environment(name)
    secrets = load_secrets(environment)
    events.redact = secrets.redact
    with open_session(environment, events) as session:
        session.require_all()

        def choose(facts: Facts) -> Candidate:
            live = [record for record in facts.history if record.live]
            repository = environment.image.repository
            found = find_on_hosts(facts, repository, live[-1].digest) if live else None
            if found is None:
                raise UsageError(
                    f"nothing of {name} is live, so there is no image to migrate with",
                    hint=f"invoke deploy --env={name}",
                )
            return found

        def make(facts: Facts, candidate: Candidate) -> Plan:
            release = candidate.release
            steps = _steps(environment.hosts_with("web")[0].name, facts, candidate, to)
            backup = BackUp(environment.database_host.name, "migration")
            saved = [backup] if steps and environment.backups.policy != "never" else []
            stages = (stage("backup", [list(saved)]), stage("migrate", [list(steps)]))
            return Plan(
                "deploy",
                name,
                str(release.version),
                release.image.digest,
                tuple(made for made in stages if made),
            )

        facts = session.facts(secrets)
        losses = find_losses(session, facts, make(facts, choose(facts)))
        if losses and not dry_run:
            if confirm is None and not allow_data_loss:
                raise GateRefused(
                    "going back loses:\n" + "\n".join(f"- {line}" for line in losses),
                    hint="--allow-data-loss says yes to that; the backup that is made first has it",
                )
            if confirm is not None:
                words = f"Take the database of {name} back to {to}? That loses what stands above."
                confirm("\n".join([*losses, words]))
        what = f"migrate to {to or 'the head'}"
        plan, applied = converge(session, secrets, choose, what, dry_run=dry_run, planner=make)
    return Result(plan, environment, applied, time.monotonic() - started)


def _steps(host: str, facts: Facts, candidate: Candidate, to: str) -> list[Step]:
    history = candidate.release.history
    live, wanted = facts.schema, to or history.head
    if live not in history or wanted not in history:
        known = ", ".join(revision.id for revision in history.revisions) or "none"
        raise UsageError(
            f"the database is at {live or 'an unknown revision'}, and {wanted or 'nothing'} is "
            f"wanted; the live release knows: {known}"
        )
    ids = [revision.id for revision in history.revisions]
    if ids.index(wanted) < ids.index(str(live)):
        image = candidate.release.image
        return [
            Downgrade(host, wanted, str(live), image.repository, image.digest, image.registered)
        ]
    ahead = history.after(str(live))[: ids.index(wanted) - ids.index(str(live))]
    return [Migrate(host, revision.id, revision.kind) for revision in ahead]
