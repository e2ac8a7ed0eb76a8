"""Convert the SQL of one request, as PostgreSQL logged it, into a script for pgbench.

So the baseline is always the SQL of the measured version, without a copy to maintain.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from workshop.bench.local_service import wait_for
from workshop.bench.postgres import PostgresServer

PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
PLACE = re.compile(r"\$(\d+)\b")
MADE_UP = re.compile(r"[0-9a-f]{32}")
NUMBERED = """\\set i :i + 1
\\set n :first + :client_id * :span + :i - 1
"""
"""Each client counts in its own range."""


@dataclass
class Statement:
    """SQL with `$1` for its parameters, and their values as SQL literals."""

    sql: str
    values: dict[str, str]


@dataclass
class Recording:
    """Statements in their order; filled when the `with` block of `recorded` ends."""

    statements: list[Statement] = field(default_factory=list)


@contextlib.contextmanager
def recorded(server: PostgresServer) -> Iterator[Recording]:
    """Record the statements that the server runs in the block; it must log to JSON."""
    found = Recording()
    _log_statements(server, "all")
    log = server.log.with_name("log.json")
    start = log.stat().st_size
    try:
        yield found
    finally:
        _log_statements(server, "none")
    with log.open() as lines:
        lines.seek(start)
        found.statements.extend(_statements(lines))


def _log_statements(server: PostgresServer, which: str) -> None:
    server.configure("log_statement", which)
    asked = "SELECT current_setting('log_statement') AS which"
    wait_for(lambda: server.rows(asked) == [{"which": which}], "change of the server's setting")


def _statements(lines: Iterator[str]) -> Iterator[Statement]:
    for entry in map(json.loads, lines):
        kind, found, sql = entry["message"].partition(": ")
        if not found or not kind.startswith(("statement", "execute")):
            continue
        if entry.get("application_name") == "amani":
            values = dict(PARAMETER.findall(entry.get("detail", "")))
            yield Statement(sql, values)


def script(statements: list[Statement], number: str, known: set[str], pipelined: bool) -> str:
    """A pgbench script that does for any `n` what `statements` do for `number`.

    Replaces `number` in values by `n`, and generated ids, except `known`, by new ones. If
    `pipelined`, it uses the round trips of the service, else one for each statement.
    """
    made_up: dict[str, str] = {}
    lines = [NUMBERED]
    for together in _round_trips(statements):
        spelled = [_spelled(statement, number, known, made_up) for statement in together]
        if pipelined and len(spelled) > 1:
            spelled = ["\\startpipeline", *spelled, "\\endpipeline"]
        lines += spelled
    return "\n".join(lines)


def _round_trips(statements: list[Statement]) -> Iterator[list[Statement]]:
    """Group the statements that the service sends together. The log does not contain it, so it is
    derived from the SQL.

    The service waits for the result of a read and not of a write. It sends consecutive reads
    together, except for the one that takes the lock.
    """
    together: list[Statement] = []
    for statement, after in zip(statements, [*statements[1:], None], strict=True):
        together.append(statement)
        reads_on = after and after.sql.startswith("SELECT") and "FOR UPDATE" not in after.sql
        if statement.sql.startswith("SELECT") and not reads_on:
            yield together
            together = []
    if together:
        yield together


def _spelled(statement: Statement, number: str, known: set[str], made_up: dict[str, str]) -> str:
    values = {
        place: _expression(value, number, known, made_up)
        for place, value in statement.values.items()
    }
    return f"{PLACE.sub(lambda place: values[place[1]], statement.sql)};"


def _expression(value: str, number: str, known: set[str], made_up: dict[str, str]) -> str:
    bare = value.strip("'")
    if number in value:
        parts = (_literal(f"'{part}'") for part in value[1:-1].split(number))
        return f"({' || :n || '.join(parts)})"
    if MADE_UP.fullmatch(bare) and bare not in known:
        salt = made_up.setdefault(bare, f"v{len(made_up)}-")
        return f"md5('{salt}' || :n)"
    return _literal(value)


def _literal(value: str) -> str:
    """Split a literal at its colons: pgbench takes the text after a colon for a variable."""
    if ":" in value:
        return "(" + " || ':' || ".join(f"'{part}'" for part in value[1:-1].split(":")) + ")"
    return value
