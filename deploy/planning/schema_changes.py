"""What a plan does to the schema. Pure: (environment, release, facts) → what comes when."""

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
    """What the operator allowed."""

    unsafe: bool = False
    """Migrations that can stop the service."""
    downgrade: bool = False
    """A rollback that undoes revisions."""

    @property
    def names(self) -> tuple[str, ...]:
        """As the journal has them."""
        allowed = {"unsafe-migration": self.unsafe, "downgrade": self.downgrade}
        return tuple(name for name, given in allowed.items() if given)


@dataclass(frozen=True)
class Changes:
    """Steps on the database: `before` the first swap and `after` the last, and why."""

    backup: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    reasons: tuple[str, ...] = ()


def changes(
    environment: Environment,
    release: Release,
    facts: Facts,
    kind: Literal["deploy", "rollback"],
    options: Options,
    *,
    idle: bool,
) -> Changes:
    """What the release needs of the schema; `idle` says that it serves everywhere already.

    Raises `GateRefused` where it cannot run on what there is, or may not change it.
    """
    live = facts.standing_schema
    host = next((name for name, found in facts.hosts.items() if "web" in found.roles), None)
    if host is None or not release.schema_head or live == release.schema_head:
        return Changes()
    if live is None:
        # Nothing serves, so nothing can be hurt, and all may come at once.
        if idle or kind == "rollback":
            return Changes()
        reason = "the database is at an unknown revision"
        return Changes(before=(Migrate(host, release.schema_head),), reasons=(reason,))
    if live not in release.history:
        return _newer(environment, release, facts, live, host, kind, options)
    pending = release.history.after(live)
    if kind == "rollback":
        return _behind(release, live, pending)
    found = order(pending, str(release.version), allow_unsafe=options.unsafe)
    after, reasons = found.after, [f"the database is at {live}"]
    if after and not environment.whole:
        reasons.append(f"{after[0].id} waits: it takes away, and not all hosts are in this deploy")
        after = ()
    before = tuple(Migrate(host, revision.id, revision.kind) for revision in found.before)
    rest = tuple(Migrate(host, revision.id, revision.kind) for revision in after)
    saved = _backup(environment, facts, kind) if before or rest else ()
    return Changes(saved, before, rest, tuple(reasons))


def _behind(release: Release, live: str, pending: tuple[Revision, ...]) -> Changes:
    if all(revision.kind == "contract" for revision in pending):
        return Changes()
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
) -> Changes:
    """The database has gone on from where the release's code ends, or to somewhere else."""
    if not release.history.revisions:  # an image from before revisions were in labels
        if kind == "rollback" or facts.newer_schema(release.schema_head):
            return Changes()
        reasons = (f"the database is at {live}",)
        whole = Migrate(host, release.schema_head)
        return Changes(_backup(environment, facts, kind), (whole,), (), reasons)
    images = [image for found in facts.hosts.values() for image in found.images]
    known = [read_label(image.labels) for image in images]
    verdict = judge(live, release.schema_head, str(release.version), known)
    if not verdict.undo:
        return Changes(reasons=(verdict.reason,))
    if not options.downgrade:
        raise GateRefused(verdict.reason, hint=_ways_out(environment, release, facts))
    extra = [revision.id for revision in verdict.undo if revision.leaves_old_code_running]
    if extra and not _in_maintenance(facts):
        raise GateRefused(
            f"undoing {', '.join(extra)} takes away what the live release uses, before the other "
            "one serves",
            hint=f"`invoke maintenance.on --env={environment.name}` first, then this again",
        )
    step = _downgrade(environment, facts, known, release, live, host, verdict.undo)
    return Changes(_backup(environment, facts, kind), (step,), (), (verdict.reason,))


def _in_maintenance(facts: Facts) -> bool:
    return all(found.proxy.maintenance for found in facts.hosts.values() if "web" in found.roles)


def _ways_out(environment: Environment, release: Release, facts: Facts) -> str:
    live = next((record.version for record in reversed(facts.history) if record.live), "")
    name = environment.name
    return (
        f"two ways out:\n- roll forward: mend {live or 'the release'} and "
        f"`invoke deploy --env={name}`\n- `invoke rollback --env={name} "
        f"--version={release.version} --with-downgrade`: undoes the migrations, with a backup "
        "first; what was written into what they added is lost, and you are asked"
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
        f"{host} has no image that knows the revision {live}, and only such a one can undo it",
        hint="deploy the version that brought it, then roll back",
    )


def precaution(
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
    """Before the schema changes, unless the environment says never."""
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
