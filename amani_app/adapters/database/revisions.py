"""Schema revisions: the ones in `migrations/` and the one in the database."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from amani_app.build_info import ROOT
from amani_app.ports.schema import DatabaseUnavailable

MIGRATIONS = ROOT / "migrations"


def read_revisions(directory: Path = MIGRATIONS) -> tuple[str, frozenset[str]]:
    """The head of the migrations in `directory`, and the revisions that are too old for this code.

    A contract migration only removes parts of the schema that this code does not use, and runs
    after every host has this code. So the revision before it is sufficient as well.

    Parses the files, because importing Alembic would take a third of the boot. Raises
    `ValueError` unless there is exactly one head.
    """
    parents: dict[str, set[str]] = {}
    contracts: set[str] = set()
    for file in (directory / "versions").glob("*.py"):
        module = ast.parse(file.read_bytes(), str(file))
        named = _assignments(module)
        if re.search(r"^Class: contract$", ast.get_docstring(module) or "", re.MULTILINE):
            contracts.add(str(named["revision"]))
        down = named.get("down_revision")
        parents[str(named["revision"])] = {down} if isinstance(down, str) else set(down or ())
    heads = set(parents) - set().union(*parents.values())
    if len(heads) != 1:
        raise ValueError(f"{directory}: expected one head, found {sorted(heads)}")
    head = heads.pop()
    enough = {head}
    at = {head}
    while at <= contracts:
        at = set().union(*(parents[revision] for revision in at))
        enough |= at
    return head, frozenset(parents.keys() - enough)


def _assignments(module: ast.Module) -> dict[str, str | tuple[str, ...] | None]:
    found = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name in ("revision", "down_revision"):
            found[name] = ast.literal_eval(value)
    return found


class DatabaseSchema:
    """The `SchemaSource` of a SQLAlchemy engine."""

    def __init__(self, engine: Engine, directory: Path = MIGRATIONS) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._directory = directory

    @cached_property
    def _own(self) -> tuple[str, frozenset[str]]:
        # Read lazily: with two heads, `flask db merge` must still start.
        return read_revisions(self._directory)

    @property
    def expected(self) -> str:
        return self._own[0]

    @property
    def insufficient(self) -> frozenset[str]:
        """Known revisions, without the head and those that only contract migrations follow."""
        return self._own[1]

    def live(self) -> str | None:
        """One statement on a pooled connection."""
        try:
            with self._engine.connect() as connection:
                try:
                    statement = text("SELECT version_num FROM alembic_version")
                    found: str | None = connection.scalar(statement)
                    return found
                except DBAPIError:
                    if inspect(connection).has_table("alembic_version"):
                        raise
                    return None
        except SQLAlchemyError as error:
            raise DatabaseUnavailable from error

    def losses(self, revision: str) -> Iterator[str]:
        """Searches the SQL of the downgrades for DROP; see `loss.find_losses`."""
        # Imports Alembic, a fifth of the boot, which a web process does not need.
        from amani_app.adapters.database.loss import find_losses

        return find_losses(self._engine, self._directory, self.live() or "base", revision)
