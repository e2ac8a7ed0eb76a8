"""squawk's rules for a revision's SQL (https://squawkhq.com/docs/rules)."""

from __future__ import annotations

import json
import subprocess

from deploy.database.findings import Finding
from deploy.database.revisions import Kind
from deploy.errors import DeployError
from deploy.machine.checkout import program

OLDEST_SERVER = "15"
"""The oldest PostgreSQL that the rules must hold for."""

_LEFT_OUT = (
    # Matters of style.
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "ban-char-field",
    "require-enum-value-ordering",
    # A revision runs in one transaction, so it is never half-applied. For statements outside a
    # transaction (CONCURRENTLY), an own rule requires IF NOT EXISTS.
    "prefer-robust-stmts",
    # The migration code sets them on its connection.
    "require-lock-timeout",
    "require-statement-timeout",
    # Covered by own rules, which also read the downgrade (the old type) or the rest of the
    # revision.
    "changing-column-type",
    "adding-not-nullable-field",
    # Code that relies on it is at fault, not the schema.
    "ban-drop-not-null",
    "ban-drop-constraint",
)


def check(text: str) -> list[Finding]:
    """squawk's findings in a script. Raises `DeployError` if squawk cannot read it."""
    if not text.strip():  # to which squawk says that all is well
        raise DeployError("squawk got an empty script")
    argv = [program("squawk"), "--reporter=json", f"--pg-version={OLDEST_SERVER}.0"]
    argv += [f"--exclude={','.join(_LEFT_OUT)}", "--stdin-filepath=revision.sql"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True)  # nosec B603
    try:
        found = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip() or f"ended with status {done.returncode}"
        raise DeployError(f"squawk could not read a revision: {words}") from None
    lines = text.splitlines()
    return [_finding(one, lines) for one in found]


def _finding(one: dict[str, object], lines: list[str]) -> Finding:
    first = int(str(one["line"]))  # counted from 0
    last = int(str(one.get("line_end", first)))
    statement = " ".join(" ".join(lines[first : last + 1]).split())
    rule = str(one["rule_name"])
    takes_away = rule.startswith("ban-drop-") and rule != "ban-drop-database"
    kind: Kind = "contract" if takes_away else "unsafe"
    advice = ". ".join(str(one[part]).rstrip(".") for part in ("message", "help") if one.get(part))
    return Finding(rule, kind, statement[:200], advice)
