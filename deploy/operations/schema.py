"""`invoke db.current`, `db.upgrade` and `db.downgrade`: the schema, apart from a deploy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.database.revisions import History
from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.execute.plan import Plan, make_stage
from deploy.operations.candidates import find_candidate_on_hosts
from deploy.operations.data_loss import data_loss_refused, find_data_loss
from deploy.operations.host_session import open_session
from deploy.operations.planned_run import Result, plan_and_apply
from deploy.secrets import load_secrets
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade, Migrate

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.execute.plan import Step
    from deploy.operations.candidates import Candidate
    from deploy.state.facts import Facts


def read_schema(name: str, events: Events) -> tuple[str, str]:
    """Return the revision of the database, and the pending migrations of the live release.

    The revision is empty if it is unknown. The migrations are one text, `none` if there are none.
    """
    environment = load_environment(name)
    with open_session(environment, events) as session:
        session.require_all()
        facts = session.facts()
        live = _live_candidate(facts, environment)
        history = live.release.history if live else History()
        revision = facts.schema or ""
        ahead = history.after(revision) if revision in history else ()
        return revision, ", ".join(f"{one.id} ({one.kind})" for one in ahead) or "none"


def migrate_schema(
    name: str,
    to: str,
    events: Events,
    *,
    confirm: Callable[[str], None] | None,
    allow_data_loss: bool = False,
    dry_run: bool = False,
) -> Result:
    """Upgrade or downgrade the database to a revision of the live release (default: its head).

    Takes a backup first, unless the environment's backup policy is `never`. Before a downgrade that
    deletes data, `confirm` gets the question with the data, and raises if the operator declines.
    Without `confirm`, such a downgrade needs `allow_data_loss`, or `GateRefused` is raised. Raises
    `UsageError` if no release is live or the live release does not know the revision.
    """
    started = time.monotonic()
    environment = load_environment(name)
    secrets = load_secrets(environment)
    events.redact = secrets.redact
    with open_session(environment, events) as session:
        session.require_all()

        def choose(facts: Facts) -> Candidate:
            found = _live_candidate(facts, environment)
            if found is None:
                raise UsageError(
                    f"no release is live in {name}, so there is no image with migrations",
                    hint=f"invoke deploy --env={name}",
                )
            return found

        def make(facts: Facts, candidate: Candidate) -> Plan:
            release = candidate.release
            steps = migration_steps(environment.hosts_with("web")[0].name, facts, candidate, to)
            backup = BackUp(environment.database_host.name, "migration")
            saved = [backup] if steps and environment.backups.policy != "never" else []
            stages = (make_stage("backup", [list(saved)]), make_stage("migrate", [list(steps)]))
            return Plan(
                "deploy",
                name,
                str(release.version),
                release.image.digest,
                tuple(each for each in stages if each),
            )

        facts = session.facts(secrets)
        made = make(facts, choose(facts))
        losses = find_data_loss(session, facts, made)
        if losses and not dry_run:
            if confirm is None and not allow_data_loss:
                raise data_loss_refused("downgrade", losses, made)
            if confirm is not None:
                question = f"Downgrade the database of {name} to {to}, and delete the data above?"
                confirm("\n".join([*losses, question]))
        plan, applied = plan_and_apply(
            session,
            secrets,
            choose,
            f"migrate to {to or 'the head'}",
            dry_run=dry_run,
            planner=make,
        )
    return Result(plan, environment, applied, time.monotonic() - started)


def _live_candidate(facts: Facts, environment: Environment) -> Candidate | None:
    live = [record for record in facts.history if record.live]
    if not live:
        return None
    return find_candidate_on_hosts(facts, environment.image.repository, live[-1].digest)


def migration_steps(host: str, facts: Facts, candidate: Candidate, to: str) -> list[Step]:
    """Return the steps from the live revision to `to` (default: the head of the release). Pure.

    A downgrade is one step. Raises `UsageError` if the release does not know both revisions.
    """
    history = candidate.release.history
    live, wanted = facts.schema, to or history.head
    if live not in history or wanted not in history:
        known = ", ".join(revision.id for revision in history.revisions) or "none"
        raise UsageError(
            f"cannot migrate the database from {live or 'an unknown revision'} to "
            f"{wanted or 'an unknown head'}: the live release must know both",
            hint=f"revisions of the live release: {known}",
        )
    ids = [revision.id for revision in history.revisions]
    if ids.index(wanted) < ids.index(str(live)):
        image = candidate.release.image
        return [
            Downgrade(host, wanted, str(live), image.repository, image.digest, image.registered)
        ]
    ahead = history.after(str(live))[: ids.index(wanted) - ids.index(str(live))]
    return [Migrate(host, revision.id, revision.kind) for revision in ahead]
