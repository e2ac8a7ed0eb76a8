"""Compares the class that each revision of a checkout states with its SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.database import rules, sql, squawk
from deploy.database.checkout import read_checkout
from deploy.database.findings import Finding, find_strictest
from deploy.database.revisions import KINDS, History, Kind, Revision
from deploy.errors import GateRefused, UsageError


@dataclass(frozen=True)
class RevisionVerdict:
    """A revision, the class that its SQL shows, and the findings. `back` are those of its
    downgrade."""

    revision: Revision
    shown: Kind
    findings: tuple[Finding, ...]
    back: tuple[Finding, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the revision states a class that is strict enough. `unsafe` is the strictest."""
        return KINDS.index(self.revision.kind) >= KINDS.index(self.shown)


def classify(upgrade: sql.Script, downgrade: sql.Script) -> tuple[Kind, tuple[Finding, ...]]:
    """The class that a revision's SQL shows, and the findings that cause it."""
    if not upgrade.statements:
        return "expand", ()
    found = [
        *rules.check(upgrade.statements, downgrade.statements),
        *squawk.check(upgrade.text),
    ]
    kinds = [finding.kind for finding in found]
    if "contract" in kinds and any(_adds(statement) for statement in upgrade.statements):
        advice = (
            "changes for the new release run before the swap, removals of what only the old "
            "one used run after it: split the revision in two"
        )
        found.append(Finding("expand-with-contract", "unsafe", "", advice))
        kinds.append("unsafe")
    return find_strictest(kinds), tuple(found)


def _adds(statement: str) -> bool:
    words = statement.upper()
    made = words.startswith(("CREATE TABLE", "CREATE TYPE", "CREATE SEQUENCE", "CREATE VIEW"))
    return made or (words.startswith("ALTER TABLE") and " ADD COLUMN " in words)


def check(checkout: Path, *, since: str = "") -> tuple[RevisionVerdict, ...]:
    """Check every revision of a checkout after `since`, oldest first.

    Raises `UsageError` if the revisions cannot be read, or if one of them has a downgrade without
    SQL.
    """
    history = read_checkout(checkout / "migrations" / "versions")
    if since and since not in history:
        raise UsageError(f"--since={since}: no such revision")
    wanted = history.after(since)
    if not wanted:
        return ()
    up, down = sql.render(checkout, "upgrade"), sql.render(checkout, "downgrade")
    return tuple(_judge(revision, up, down) for revision in wanted)


def _judge(
    revision: Revision, up: Mapping[str, sql.Script], down: Mapping[str, sql.Script]
) -> RevisionVerdict:
    if revision.id not in up or revision.id not in down:
        raise UsageError(
            f"revision {revision.id} prints no SQL in both directions",
            hint="`flask db upgrade base:head --sql` must print it, and so must `downgrade`",
        )
    shown, found = classify(up[revision.id], down[revision.id])
    # A downgrade loses added data, which the operator must confirm at that time. Statements that
    # would stop the service are wrong in a downgrade, too.
    back = rules.check(down[revision.id].statements, up[revision.id].statements)
    stops = tuple(f for f in back if f.kind == "unsafe" and f.rule not in ("column-type",))
    return RevisionVerdict(revision, shown, found, stops)


def require_agreement(checkout: Path, *, since: str = "") -> History:
    """The checkout's history, after a check of every revision's class.

    Raises `GateRefused` with all revisions that fail.
    """
    wrong = [verdict for verdict in check(checkout, since=since) if not verdict.agrees]
    if wrong:
        raise GateRefused(
            "\n".join(describe(verdict) for verdict in wrong),
            hint="`invoke db.lint` shows the details; docs/migrations.md has the safe alternatives",
        )
    return read_checkout(checkout / "migrations" / "versions")


def describe(verdict: RevisionVerdict) -> str:
    """A verdict as lines of text."""
    word = "ok" if verdict.agrees else "WRONG"
    lines = [
        f"{verdict.revision.id}: {word}: states {verdict.revision.kind}, its SQL shows "
        f"{verdict.shown}"
    ]
    for finding in verdict.findings:
        if not verdict.agrees and finding.kind == verdict.shown:
            lines += [f"  {finding.rule}: {finding.statement}", f"    {finding.advice}"]
    lines += [f"  in the downgrade, {f.rule}: {f.statement}\n    {f.advice}" for f in verdict.back]
    return "\n".join(lines)
