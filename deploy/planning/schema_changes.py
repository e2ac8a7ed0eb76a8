"""The schema changes of a plan, before and after its swaps. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy.database.compatibility import judge, order
from deploy.database.revisions import History, Revision, read_label
from deploy.errors import GateRefused
from deploy.execute.plan import Step
from deploy.state.release import ImageRef
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade, Migrate

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.facts import Facts
    from deploy.state.release import Release


@dataclass(frozen=True)
class Options:
    """The otherwise refused changes that the operator allowed."""

    unsafe: bool = False
    """Migrations that can interrupt the service."""
    downgrade: bool = False
    """A rollback that downgrades the schema."""

    @property
    def names(self) -> tuple[str, ...]:
        allowed = {"unsafe-migration": self.unsafe, "downgrade": self.downgrade}
        return tuple(name for name, given in allowed.items() if given)


@dataclass(frozen=True)
class SchemaChanges:
    """Steps on the database, `before` the first swap and `after` the last, with their reasons."""

    backup: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    reasons: tuple[str, ...] = ()


def plan_changes(
    environment: Environment,
    release: Release,
    facts: Facts,
    kind: Literal["deploy", "rollback"],
    options: Options,
    *,
    idle: bool,
) -> SchemaChanges:
    """The changes that the release needs; `idle` is whether it already serves on all hosts.

    Raises `GateRefused` if it can neither run on the live schema nor is allowed to change it.
    """
    live = facts.standing_schema
    host = next((name for name, found in facts.hosts.items() if "web" in found.roles), None)
    if host is None or not release.schema_head or live == release.schema_head:
        return SchemaChanges()
    if live is None:
        # No release serves, so no migration can interrupt one: apply all at once.
        if idle or kind == "rollback":
            return SchemaChanges()
        reason = "the database is at an unknown revision"
        return SchemaChanges(before=(Migrate(host, release.schema_head),), reasons=(reason,))
    if live not in release.history:
        return _newer(environment, release, facts, live, host, kind, options)
    pending = release.history.after(live)
    if kind == "rollback":
        return _behind(release, live, pending)
    found = order(pending, str(release.version), allow_unsafe=options.unsafe)
    after, reasons = found.after, [f"the database is at {live}"]
    if after and not environment.whole:
        reasons.append(
            f"{after[0].id} is postponed: it is a contract, and not all hosts are selected"
        )
        after = ()
    before = tuple(Migrate(host, revision.id, revision.kind) for revision in found.before)
    rest = tuple(Migrate(host, revision.id, revision.kind) for revision in after)
    saved = _backup(environment, facts, kind) if before or rest else ()
    return SchemaChanges(saved, before, rest, tuple(reasons))


def _behind(release: Release, live: str, pending: tuple[Revision, ...]) -> SchemaChanges:
    if all(revision.kind == "contract" for revision in pending):
        return SchemaChanges()
    raise GateRefused(
        f"{release.version} needs the schema {release.schema_head}, and the database is at {live}: "
        "a rollback never migrates",
        hint=f"`invoke deploy --version={release.version}` does",
    )


def _newer(
    environment: Environment,
    release: Release,
    facts: Facts,
    live: str,
    host: str,
    kind: Literal["deploy", "rollback"],
    options: Options,
) -> SchemaChanges:
    """The changes if the live revision is later than the release's head, or unknown to it."""
    if not release.history.revisions:  # an old image without the label of revisions
        if kind == "rollback" or facts.newer_schema(release.schema_head):
            return SchemaChanges()
        reasons = (f"the database is at {live}",)
        whole = Migrate(host, release.schema_head)
        return SchemaChanges(_backup(environment, facts, kind), (whole,), (), reasons)
    images = [image for found in facts.hosts.values() for image in found.images]
    known = [read_label(image.labels) for image in images]
    verdict = judge(live, release.schema_head, str(release.version), known)
    if not verdict.undo:
        return SchemaChanges(reasons=(verdict.reason,))
    if not options.downgrade:
        raise GateRefused(verdict.reason, hint=_list_options(environment, release, facts))
    extra = [revision.id for revision in verdict.undo if revision.leaves_old_code_running]
    if extra and not _in_maintenance(facts):
        raise GateRefused(
            f"downgrading {', '.join(extra)} removes parts of the schema that the live release "
            "uses until the other one serves",
            hint=f"`invoke maintenance.on --env={environment.name}` first, then this again",
        )
    step = _downgrade(environment, facts, known, release, live, host, verdict.undo)
    return SchemaChanges(_backup(environment, facts, kind), (step,), (), (verdict.reason,))


def _in_maintenance(facts: Facts) -> bool:
    return all(found.proxy.maintenance for found in facts.hosts.values() if "web" in found.roles)


def _list_options(environment: Environment, release: Release, facts: Facts) -> str:
    live = next((record.version for record in reversed(facts.history) if record.live), "")
    name = environment.name
    return (
        f"two options:\n- roll forward: fix {live or 'the release'} and "
        f"`invoke deploy --env={name}`\n- `invoke rollback --env={name} "
        f"--version={release.version} --with-downgrade`: downgrades after a backup and a "
        "confirmation; the data in the added tables and columns is lost"
    )


def _downgrade(
    environment: Environment,
    facts: Facts,
    known: Iterable[History],
    release: Release,
    live: str,
    host: str,
    undo: tuple[Revision, ...],
) -> Downgrade:
    history = next(one for one in known if live in one and release.schema_head in one)
    ids = [revision.id for revision in history.revisions]
    to = ids[ids.index(undo[0].id) - 1]
    repository = environment.image.repository
    for image in facts.hosts[host].images:
        if live in read_label(image.labels):
            digest = next((d.rpartition("@")[2] for d in image.digests), "")
            found = ImageRef(repository, digest or image.id, registered=bool(digest))
            return Downgrade(host, to, live, repository, found.digest, found.registered)
    raise GateRefused(
        f"{host} has no image that knows the revision {live}, which a downgrade needs",
        hint="deploy the version that added the revision, then roll back",
    )


def plan_precaution(
    environment: Environment,
    facts: Facts,
    kind: Literal["deploy", "rollback"],
    *,
    idle: bool,
) -> tuple[Step, ...]:
    """The backup before a release that leaves the schema alone: with `backups.policy: always`.

    The first deploy has none: there is no database yet.
    """
    wanted = environment.backups.policy == "always" and not idle
    return _backup(environment, facts, kind) if wanted and facts.standing_schema else ()


def _backup(
    environment: Environment, facts: Facts, kind: Literal["deploy", "rollback"]
) -> tuple[Step, ...]:
    """A backup before the schema changes, unless `backups.policy` is `never`."""
    if environment.backups.policy == "never":
        return ()
    host = environment.database_host.name
    if host not in facts.hosts:
        raise GateRefused(
            f"the database is backed up on {host}, which is not among the selected hosts, and "
            "the environment's `backups.policy` requires a backup",
            hint=f"select it too (--hosts={host},...), or leave --hosts out",
        )
    return (BackUp(host, kind),)
