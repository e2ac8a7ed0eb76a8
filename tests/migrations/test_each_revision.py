"""Each revision with rows in every table: downgrade, upgrade, downgrade."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Engine, inspect, text

from amani_app import create_app
from amani_app.adapters.database.loss import find_losses
from amani_app.settings import Settings
from tests.support.database_schema import read_schema
from tests.support.service_fixtures import ROOT, SECRET_KEY, Shell

CLAIM = re.compile(r"^Data: survives$", re.MULTILINE)
"""The line of a revision's docstring that claims a lossless downgrade and upgrade."""
MORE = (
    "INSERT INTO worker_heartbeats VALUES ('w', '1.0.0', '2026-11-24 00:00:00')",
    "INSERT INTO inbox (id, kind, event, reference, status, body, received_at, due_at)"
    " VALUES ('n', 'charge', 'e', 'r', 's', '{}', '2026-11-24 00:00:00', '2026-11-24 00:00:00')",
    "INSERT INTO deposits (id, owner_id, currency, asked, state, link, created_at)"
    " SELECT 'd', min(id), 'NGN', 5, 'pending', 'l', '2026-11-24 00:00:00' FROM users",
    "INSERT INTO withdrawals (id, owner_id, currency, amount, bank_code, account_number,"
    " account_name, state, failure, created_at)"
    " SELECT min(transfers.id), min(users.id), 'NGN', 5, '044', '1', 'A', 'requested', '',"
    " '2026-11-24 00:00:00' FROM transfers, users",
)
"""Rows for the tables that seeding leaves empty, in the schema of the head."""
Rows = dict[str, dict[str, Any]]
"""The columns of each table with their values, in the same row order."""


class Walk:
    """A database that this process migrates from revision to revision."""

    def __init__(self, app: Flask, migrations: Path = ROOT / "migrations") -> None:
        self.app = app
        self.engine: Engine = app.extensions["amani"].engine
        self._config = Config()
        self.migrations = migrations
        self._config.set_main_option("script_location", str(migrations))
        script = ScriptDirectory.from_config(self._config)
        self.line = [each.revision for each in reversed(list(script.walk_revisions()))]
        self._paths = {each.revision: Path(each.path) for each in script.walk_revisions()}

    def up(self, revision: str) -> None:
        with self.app.app_context():
            command.upgrade(self._config, revision)

    def down(self, revision: str) -> None:
        with self.app.app_context():
            command.downgrade(self._config, revision)

    def below(self, revision: str) -> str:
        """The predecessor of a revision."""
        place = self.line.index(revision)
        return self.line[place - 1] if place else "base"

    def claims(self, revision: str) -> bool:
        words = ast.get_docstring(ast.parse(self._paths[revision].read_text())) or ""
        return CLAIM.search(words) is not None

    def rows(self) -> Rows:
        found: Rows = {}
        with self.engine.connect() as connection:
            for table in inspect(connection).get_table_names():
                if table != "alembic_version":
                    result = connection.execute(text(f'SELECT * FROM "{table}"'))
                    lines = sorted((list(map(repr, line)) for line in result), key=repr)
                    found[table] = dict(zip(result.keys(), zip(*lines), strict=False))
        return found


def go_back_and_forth(walk: Walk, revision: str) -> list[str]:
    """Problems of the newest applied revision; afterwards the database is at its predecessor."""
    below, claims = walk.below(revision), walk.claims(revision)
    schema, rows = read_schema(walk.engine), walk.rows()
    lines = find_losses(walk.engine, walk.migrations, revision, below)
    told = {line.partition(":")[0] for line in lines}
    walk.down(below)
    schema_below, rows_below = read_schema(walk.engine), walk.rows()
    wrong = [f"its downgrade changes {each}" for each in differing(rows, rows_below)]
    if not claims:
        untold = sorted(lost(rows, rows_below) - told)
        wrong += [f"its downgrade loses {each}, and `schema-loss` is silent" for each in untold]
    walk.up(revision)
    if read_schema(walk.engine) != schema:
        wrong.append("down and up again it makes another schema")
    wrong += [f"the way back up changes {each}" for each in differing(rows_below, walk.rows())]
    if claims and walk.rows() != rows:
        wrong.append("it claims that data survives, and some does not")
    walk.down(below)
    if read_schema(walk.engine) != schema_below or walk.rows() != rows_below:
        wrong.append("down a second time it leaves something else")
    return [f"{revision}: {line}" for line in wrong]


def differing(before: Rows, after: Rows) -> list[str]:
    """Tables that exist both times and differ in a common column."""
    return [
        table
        for table in sorted(before.keys() & after.keys())
        if in_common(before[table], after[table]) != in_common(after[table], before[table])
    ]


def in_common(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    names = sorted(one.keys() & other.keys())
    return sorted(zip(*(one[name] for name in names), strict=True))


def lost(before: Rows, after: Rows) -> set[str]:
    """Removed tables and columns that had values, in the format of `schema-loss`."""
    gone = {f"table {table}" for table in before.keys() - after.keys() if before[table]}
    for table in before.keys() & after.keys():
        for column, values in before[table].items():
            if column not in after[table] and after[table] and set(values) != {"None"}:
                gone.add(f"column {table}.{column}")
    return gone


def fill(url: str, engine: Engine) -> None:
    """Insert rows into every table, in the schema of the head."""
    shell = Shell(DATABASE_URL=url, SECRET_KEY=SECRET_KEY, AMANI_PASSWORD="correct horse battery")
    shell.ok("flask", "amani", "seed", "--users=4", "--escrows=10", "--random=1")
    with engine.begin() as connection:
        for statement in MORE:
            connection.execute(text(statement))


@contextmanager
def walking(url: str, migrations: Path = ROOT / "migrations") -> Iterator[Walk]:
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY))
    yield Walk(app, migrations)
    app.extensions["amani"].engine.dispose()


def test_each_revision_downgrades_and_upgrades_with_all_rows(database_url: str) -> None:
    with walking(database_url) as walk:
        made = {"base": {}}
        for revision in walk.line:
            walk.up(revision)
            made[revision] = read_schema(walk.engine)
        fill(database_url, walk.engine)
        rows = walk.rows()
        assert {"entries", "escrows", "users", "outbox", "inbox", "withdrawals"} <= {
            table for table, columns in rows.items() if columns
        }
        for revision in reversed(walk.line):
            assert go_back_and_forth(walk, revision) == []
            below = walk.below(revision)
            if below != "base":
                assert read_schema(walk.engine) == made[below]
        assert walk.rows() == {}


REVISION = '''\
"""Made up.

Class: unsafe
{claim}
"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", "{head}"


def upgrade():
    {up}


def downgrade():
    {down}
'''
ADD = 'op.add_column("worker_heartbeats", sa.Column("host", sa.Text(), nullable=True))'
DROP = 'op.drop_column("worker_heartbeats", "host")'
RENAME = 'op.alter_column("worker_heartbeats", "{}", new_column_name="{}")'
DERIVE = 'op.execute("UPDATE worker_heartbeats SET host = name")'
FORGET = "op.execute(\"UPDATE worker_heartbeats SET version = ''\")"
DROP_UNSEEN = 'op.execute("ALTER TABLE worker_heartbeats DROP host")'
LEAVE = """op.execute("CREATE TABLE IF NOT EXISTS left_over (id integer)")
    op.execute("INSERT INTO left_over VALUES (1)")"""


@pytest.mark.parametrize(
    ("claim", "up", "down", "complaint"),
    [
        ("Data: survives", [RENAME.format("version", "of")], [RENAME.format("of", "version")], ""),
        ("", [ADD], [DROP], ""),
        ("Data: survives", [ADD, DERIVE], [DROP], ""),
        ("Data: survives", [ADD], [DROP], "it claims that data survives"),
        ("", [ADD], [DROP_UNSEEN], "loses column worker_heartbeats.host, and"),
        ("", ["pass"], [FORGET], "downgrade changes worker_heartbeats"),
        ("", [ADD, FORGET], [DROP], "way back up changes worker_heartbeats"),
        ("", [ADD], [DROP, LEAVE], "down a second time"),
    ],
    ids=["renamed", "added", "derived", "claimed", "untold", "changed", "changed above", "left"],
)
def test_revision_that_contradicts_its_docstring_is_detected(
    sqlite_url: str,
    tmp_path: Path,
    migrated_sqlite: Path,
    claim: str,
    up: list[str],
    down: list[str],
    complaint: str,
) -> None:
    folder = shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    shutil.copy(migrated_sqlite, sqlite_url.removeprefix("sqlite:///"))
    with walking(sqlite_url, folder) as walk:
        lines = {"up": "\n    ".join(up), "down": "\n    ".join(down)}
        made = REVISION.format(claim=claim, head=walk.line[-1], **lines)
    (folder / "versions" / "9999_made_up.py").write_text(made)
    with walking(sqlite_url, folder) as walk:
        with walk.engine.begin() as connection:
            connection.execute(text(MORE[0]))
        walk.up("9999")
        if ADD in up and DERIVE not in up:
            with walk.engine.begin() as connection:
                connection.execute(text("UPDATE worker_heartbeats SET host = 'h', version = '2'"))
        found = go_back_and_forth(walk, "9999")
    assert [complaint in line for line in found].count(True) == bool(complaint), found
    assert bool(found) == bool(complaint), found
