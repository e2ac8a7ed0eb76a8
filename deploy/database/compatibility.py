"""Which release runs on which schema, and when the schema must change. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deploy.database.revisions import History, Revision
from deploy.errors import GateRefused


@dataclass(frozen=True)
class Pending:
    """The revisions to apply `before` the release gets traffic, and `after` every host runs it."""

    before: tuple[Revision, ...] = ()
    after: tuple[Revision, ...] = ()


def order(revisions: tuple[Revision, ...], version: str, *, allow_unsafe: bool = False) -> Pending:
    """Divide the pending revisions into those before the swap and those after it.

    Raises `GateRefused` for an unsafe revision that is not allowed, and for a contract revision
    together with others: the live release may still use what it removes.
    """
    unsafe = [revision.id for revision in revisions if revision.kind == "unsafe"]
    if unsafe and not allow_unsafe:
        raise GateRefused(
            f"{version} has migrations that can stop the service: {', '.join(unsafe)}",
            hint="docs/migrations.md has the safe alternative for each; to run them anyway, at a "
            "time of low traffic, add --allow-unsafe-migration, which the journal records",
        )
    after = tuple(revision for revision in revisions if revision.kind == "contract")
    before = tuple(revision for revision in revisions if revision.kind != "contract")
    if after and before and not allow_unsafe:
        raise GateRefused(
            f"{version} adds {_names(before)} and removes in {_names(after)}: the live "
            "release may use what is removed",
            hint="ship a contract migration one release after the code that stopped using its "
            "target: deploy the release in between first (`invoke releases`, the image's "
            "tags), or ship it with the next one",
        )
    return Pending(before, after) if not (after and before) else Pending(revisions)


@dataclass(frozen=True)
class SchemaVerdict:
    """Whether a release runs on the live schema.

    `undo` lists the revisions that prevent it, oldest first; it is empty if the release runs.
    `reason` explains the result to the operator.
    """

    reason: str
    undo: tuple[Revision, ...] = ()


def judge(live: str | None, head: str, version: str, known: Iterable[History]) -> SchemaVerdict:
    """Whether a release whose code ends at `head` runs on a database at `live`, which is newer.

    `known` are the histories of all available images. One of them must contain `head` and `live`.
    Raises `GateRefused` if none does.
    """
    if not head or live is None or live == head:
        return SchemaVerdict(
            f"the database is at {live or 'an unknown revision'}, which {version} needs"
        )
    reaching = [history for history in known if live in history and head in history]
    if not reaching:
        raise GateRefused(
            f"the database is at {live}, which is not in the history of {version} (at {head}) "
            "or of any available image: whether the release runs on it is unknown",
            hint="find the image with that revision (`invoke releases`) and deploy that version, "
            "or restore a backup (docs/backups.md)",
        )
    history = reaching[0]
    between = history.after(head)[: len(history.after(head)) - len(history.after(live))]
    breaking = [revision for revision in between if not revision.leaves_old_code_running]
    if not breaking:
        return SchemaVerdict(
            f"the schema stays at {live}: {version} runs on it with {_names(between)}"
        )
    first = between.index(breaking[0])
    reason = f"{version} cannot run on the schema {live}: {_names(breaking)} removed what it uses"
    return SchemaVerdict(reason, between[first:])


def _names(revisions: Iterable[Revision]) -> str:
    return ", ".join(f"{revision.id} ({revision.kind})" for revision in revisions)
