"""The SQL of a checkout's revisions, without a database: printed by Alembic, split here."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlparse

from deploy.errors import UsageError
from deploy.machine.checkout import program

# Offline mode opens no connection. The host cannot exist (RFC 6761).
_URL = "postgresql+psycopg://nobody@migrations.invalid/none"
_CUT = re.compile(
    r"^-- Running (?P<direction>upgrade|downgrade) (?P<old>\S*) -> (?P<new>\S*)$", re.MULTILINE
)
_OWN = re.compile(r"^(?:BEGIN|COMMIT)$|\balembic_version\b", re.IGNORECASE)
_KEPT = ("PATH", "HOME", "LANG")
_COMMENT = re.compile(r"(/\*.*?\*/|--[^\n]*)", re.DOTALL)


@dataclass(frozen=True)
class Script:
    """The SQL of one revision in one direction: `text` as Alembic prints it, with BEGIN and COMMIT,
    and `statements` without those, comments and line breaks."""

    text: str

    @property
    def statements(self) -> tuple[str, ...]:
        """The revision's own statements, one per line."""
        split = (_flatten(statement) for statement in sqlparse.split(self.text))
        return tuple(one for one in split if one and not _OWN.search(one))


def _flatten(statement: str) -> str:
    # Bodies in dollar quotes keep their comments: the rules do not read them.
    text = statement if "$" in statement else _COMMENT.sub(" ", statement)
    return " ".join(text.split()).rstrip("; ")


def render(checkout: Path, direction: Literal["upgrade", "downgrade"]) -> Mapping[str, Script]:
    """The SQL that each revision's upgrade or downgrade sends to PostgreSQL.

    Raises `UsageError` with Alembic's output if a migration cannot be printed, for example
    because it reads rows.
    """
    span = "base:head" if direction == "upgrade" else "head:base"
    with tempfile.TemporaryDirectory(prefix="migrations-") as folder:
        done = subprocess.run(  # nosec B603
            [program("flask"), "db", direction, span, "--sql"],
            cwd=checkout,
            env={
                **{name: os.environ[name] for name in _KEPT if name in os.environ},
                "DATABASE_URL": _URL,
                "DATA_DIR": folder,
                "ENVIRONMENT": "local",
                "PROMETHEUS_MULTIPROC_DIR": folder,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise UsageError(
            f"`flask db {direction} {span} --sql` in {checkout} ended with {done.returncode}:\n"
            f"{tail}",
            hint="every migration must print its SQL without a database: read rows in the "
            "statement itself (INSERT ... SELECT, UPDATE ... WHERE)",
        )
    return cut(done.stdout)


def cut(text: str) -> Mapping[str, Script]:
    """Split Alembic's output by revision: the applied one in an upgrade, the reverted one in a
    downgrade."""
    marks = list(_CUT.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {
        mark["new"] if mark["direction"] == "upgrade" else mark["old"]: Script(
            "BEGIN;\n" + text[mark.end() : end].strip().removesuffix("BEGIN;").strip() + "\n"
        )
        for mark, end in zip(marks, ends, strict=True)
    }
