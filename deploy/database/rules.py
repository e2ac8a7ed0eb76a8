"""The project's own rules for a revision's statements, in addition to squawk's.

Sources: strong_migrations (https://github.com/ankane/strong_migrations), the safe and unsafe
operations of django-pg-zero-downtime-migrations, and PostgreSQL's table of lock modes
(https://www.postgresql.org/docs/current/explicit-locking.html). docs/migrations.md lists each rule
with its reason and the safe alternative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deploy.database.findings import Finding
from deploy.database.revisions import Kind

_NAME = r'(?:"[^"]+"|[\w.]+)'
_MADE = re.compile(rf"^CREATE TABLE (?:IF NOT EXISTS )?({_NAME})", re.IGNORECASE)
_TABLE = re.compile(rf"^ALTER TABLE (?:IF EXISTS )?(?:ONLY )?({_NAME})", re.IGNORECASE)
_CHANGED = re.compile(
    rf"^(?:INSERT INTO|UPDATE(?: ONLY)?|DELETE FROM(?: ONLY)?|MERGE INTO) ({_NAME})", re.IGNORECASE
)
_WITH = re.compile(r"^WITH\b.*\b(?:INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_CONCURRENT = re.compile(r"^(?:CREATE|DROP)(?: UNIQUE)? INDEX CONCURRENTLY", re.IGNORECASE)
_VALIDATE = re.compile(r"\bVALIDATE CONSTRAINT\b", re.IGNORECASE)
_NOT_VALID = re.compile(r"\bNOT VALID\b", re.IGNORECASE)
_REQUIRED = re.compile(r"\bALTER(?: COLUMN)? \S+ SET NOT NULL\b", re.IGNORECASE)
_TYPE = re.compile(
    rf"\bALTER(?: COLUMN)? ({_NAME})(?: SET DATA)? TYPE "
    r"([\w ]+?(?:\([^)]*\))?)(?: USING .*)?(?:,|$)",
    re.IGNORECASE,
)
_KNOWN = re.compile(
    r"^(?:CREATE(?: OR REPLACE)?(?: UNIQUE| CONSTRAINT| TEMPORARY| MATERIALIZED)?"
    r" (?:TABLE|INDEX|SEQUENCE|TYPE|VIEW|FUNCTION|PROCEDURE|TRIGGER|SCHEMA|EXTENSION|DOMAIN)"
    r"|ALTER (?:TABLE|INDEX|SEQUENCE|TYPE|VIEW|SCHEMA|DOMAIN|FUNCTION)"
    r"|DROP (?:TABLE|INDEX|SEQUENCE|TYPE|VIEW|FUNCTION|TRIGGER|SCHEMA|DOMAIN|MATERIALIZED VIEW)"
    r"|COMMENT ON|GRANT|REVOKE|REINDEX|ANALYZE|SELECT SETVAL|BEGIN|COMMIT)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Pattern:
    """A rule that a single statement can break."""

    rule: str
    kind: Kind
    pattern: re.Pattern[str]
    advice: str


def _pattern(rule: str, kind: Kind, pattern: str, advice: str) -> _Pattern:
    return _Pattern(rule, kind, re.compile(pattern, re.IGNORECASE), advice)


_PATTERNS = (
    _pattern(
        "rename",
        "unsafe",
        r"^ALTER (?:TABLE|VIEW|SCHEMA|TYPE|DOMAIN)\b.*\bRENAME\b(?! CONSTRAINT)",
        "the live release uses the old name and the next one the new name: add the new "
        "column or table, write to both, backfill, read from the new one, then drop the old "
        "one in a later release; for an enum's value add the new value instead",
    ),
    _pattern(
        "serial-column",
        "unsafe",
        r"^ALTER TABLE\b.*\bADD (?:COLUMN )?\S+ (?:BIG|SMALL)?SERIAL\b",
        "this rewrites the whole table under a lock: add a nullable column with a sequence "
        "as its default, backfill, then make it required",
    ),
    _pattern(
        "rewrite",
        "unsafe",
        r"^(?:VACUUM FULL|CLUSTER)\b",
        "this rewrites the whole table under a lock: pg_repack does it without one",
    ),
    _pattern(
        "unique-column",
        "unsafe",
        r"^ALTER TABLE\b.*\bADD (?:COLUMN )?(?!CONSTRAINT\b|UNIQUE\b|PRIMARY\b)\S+ .*"
        r"\b(?:UNIQUE|PRIMARY KEY)\b",
        "this builds an index while the table is locked: add the column without it, then "
        "make a unique index CONCURRENTLY and attach it with ADD CONSTRAINT ... USING INDEX",
    ),
    _pattern(
        "primary-key",
        "unsafe",
        r"^ALTER TABLE\b.*\bADD (?:CONSTRAINT \S+ )?(?:PRIMARY KEY|UNIQUE)(?! USING INDEX)\b"
        r"(?!.*\bUSING INDEX\b)",
        "this builds an index while the table is locked: make a unique index CONCURRENTLY in a "
        "revision of its own, then ADD CONSTRAINT ... USING INDEX",
    ),
    _pattern(
        "exclusion-constraint",
        "unsafe",
        r"^ALTER TABLE\b.*\bEXCLUDE\b",
        "this checks every row under a lock that blocks reads and writes: make a new table "
        "with the constraint and copy in batches",
    ),
    _pattern(
        "json-column",
        "unsafe",
        r"^(?:CREATE|ALTER) TABLE\b.*\bjson\b(?!\()",
        "json has no equality operator, which breaks SELECT DISTINCT: use jsonb",
    ),
    _pattern(
        "generated-column",
        "unsafe",
        r"^ALTER TABLE\b.*\bADD\b.*\bGENERATED ALWAYS AS \(.*\) STORED\b",
        "this rewrites the whole table under a lock: add a plain column, fill it by a "
        "trigger or in the code, and backfill",
    ),
    _pattern(
        "tablespace",
        "unsafe",
        r"\bSET TABLESPACE\b",
        "this copies the table under a lock: make a new one and copy in batches",
    ),
    _pattern(
        "explicit-lock",
        "unsafe",
        r"^LOCK\b",
        "this blocks every access until the revision ends: let each statement take the lock "
        "that it needs",
    ),
    _pattern(
        "truncate",
        "unsafe",
        r"^TRUNCATE\b",
        "this deletes all rows at once, which the live release may read: delete in batches",
    ),
    _pattern(
        "session-setting",
        "unsafe",
        r"^(?:SET(?! CONSTRAINTS\b)|RESET)\b",
        "the migration code sets lock_timeout and statement_timeout on its connection; a SET "
        "in a revision would outlive it",
    ),
    _pattern(
        "drop-default",
        "contract",
        r"^ALTER TABLE\b.*\bDROP DEFAULT\b",
        "the previous release omits the column in its INSERTs: drop the default one release "
        "after the code sets a value",
    ),
    _pattern(
        "drop-object",
        "contract",
        r"^DROP (?:SCHEMA|TYPE|DOMAIN|VIEW|MATERIALIZED VIEW|SEQUENCE|FUNCTION|TRIGGER)\b",
        "the live release may use it: drop it one release after the code has stopped",
    ),
    _pattern(
        "index-not-repeatable",
        "unsafe",
        r"^(?:CREATE(?: UNIQUE)? INDEX CONCURRENTLY (?!IF NOT EXISTS)"
        r"|DROP INDEX CONCURRENTLY (?!IF EXISTS))",
        "this runs outside a transaction: use if_not_exists=True (if_exists=True), so that "
        "it can run again after an interruption",
    ),
)


def check(statements: Sequence[str], undone: Iterable[str] = ()) -> list[Finding]:
    """The findings of the project's own rules. `undone`, the downgrade's statements, shows the old
    types."""
    made = {_bare(found[1]) for one in statements if (found := _MADE.match(one))}
    ours = [one for one in statements if _table_of(one) not in made]
    findings = [
        Finding(rule.rule, rule.kind, one[:200], rule.advice)
        for one in statements
        for rule in _PATTERNS
        # A new table is empty and unused, so only a json column is wrong in it.
        if rule.pattern.search(one) and (one in ours or rule.rule == "json-column")
    ]
    findings += [_unknown(one) for one in statements if not _is_known(one)]
    findings += _types(ours, tuple(undone))
    findings += _required(ours)
    findings += _company(statements, ours)
    return findings


def _bare(name: str) -> str:
    return name.replace('"', "").lower()


def _table_of(statement: str) -> str:
    for pattern in (_TABLE, _CHANGED):
        if named := pattern.match(statement):
            return _bare(named[1])
    return ""


def _is_known(statement: str) -> bool:
    patterns = (_KNOWN, _CHANGED, _WITH)
    by_rule = any(rule.pattern.search(statement) for rule in _PATTERNS)
    return by_rule or any(pattern.match(statement) for pattern in patterns)


def _unknown(statement: str) -> Finding:
    advice = (
        "the effect of this statement is unknown: use plain statements, or state `Class: "
        "unsafe`, which the operator must allow at the deploy"
    )
    return Finding("raw-sql", "unsafe", statement[:200], advice)


def _types(statements: Iterable[str], undone: Sequence[str]) -> Iterator[Finding]:
    before = {
        (_table_of(one), _bare(name)): old for one in undone for name, old in _TYPE.findall(one)
    }
    for one in statements:
        for name, new in _TYPE.findall(one):
            old = before.get((_table_of(one), _bare(name)), "")
            if not _only_widens(old, new):
                advice = (
                    f"from {old or 'an unknown type'} to {new} PostgreSQL may rewrite the "
                    "table under a lock, and the previous release uses the old type: add a "
                    "column of the new type, write to both, backfill, switch, drop the old "
                    "one in a later release"
                )
                yield Finding("column-type", "unsafe", one[:200], advice)


def _only_widens(old: str, new: str) -> bool:
    """Whether PostgreSQL changes this type without reading the rows."""
    old, new = (" ".join(text.upper().split()) for text in (old, new))
    was, now = (re.fullmatch(r"(?:VARCHAR|CHARACTER VARYING)(?:\((\d+)\))?", t) for t in (old, new))
    if was and (new == "TEXT" or (now and not now[1])):
        return True
    if was and now and was[1]:
        return int(now[1]) >= int(was[1])
    was, now = (re.fullmatch(r"NUMERIC\((\d+), ?(\d+)\)", text) for text in (old, new))
    return bool(was and now and was[2] == now[2] and int(now[1]) >= int(was[1]))


def _required(statements: Sequence[str]) -> Iterator[Finding]:
    checked = {_table_of(one) for one in statements if _VALIDATE.search(one)}
    for one in statements:
        if not _REQUIRED.search(one):
            continue
        if _table_of(one) in checked:  # the constraint proves it, so no row is looked at
            advice = "the previous release may still write NULL"
            yield Finding("required-column", "contract", one[:200], advice)
            continue
        advice = (
            "this checks every row under a lock that blocks reads and writes: ADD CONSTRAINT "
            "... CHECK (... IS NOT NULL) NOT VALID in one revision; in a later one VALIDATE "
            "it, SET NOT NULL, and drop the constraint"
        )
        yield Finding("required-column", "unsafe", one[:200], advice)


def _company(statements: Sequence[str], ours: Sequence[str]) -> Iterator[Finding]:
    """Findings about statements that must not be in one revision together."""
    changes = [one for one in ours if _CHANGED.match(one) or _WITH.match(one)]
    if len(changes) < len(statements):
        for one in changes:
            advice = (
                "rows locked by it wait for the schema's locks: put it into a separate revision"
            )
            yield Finding("backfill-with-schema", "unsafe", one[:200], advice)
    for one in changes:
        if not re.search(r"\bWHERE\b|^INSERT INTO .* VALUES\b", one, re.IGNORECASE):
            advice = (
                "this changes every row in one transaction: work in batches with a WHERE, "
                "such as ranges of the key, so that it can stop and continue"
            )
            yield Finding("backfill-unbatched", "unsafe", one[:200], advice)
        else:
            yield Finding("backfill", "backfill", one[:200], "it changes rows")
    for one in statements:
        if _CONCURRENT.match(one) and len(statements) > 1:
            advice = (
                "this leaves the transaction, so other statements of the revision could be "
                "half-applied: put it into a separate revision"
            )
            yield Finding("concurrent-index-in-company", "unsafe", one[:200], advice)
    added = {_table_of(one) for one in ours if _NOT_VALID.search(one)}
    for one in ours:
        if _VALIDATE.search(one) and _table_of(one) in added:
            advice = (
                "the lock of ADD CONSTRAINT is held while the rows are checked: put VALIDATE "
                "into a separate revision"
            )
            yield Finding("validate-with-add", "unsafe", one[:200], advice)
