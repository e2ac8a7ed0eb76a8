"""Statements that SQLAlchemy compiles once, in the form that libpq sends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from collections import namedtuple
from dataclasses import dataclass

from sqlalchemy import Delete, Dialect, Executable, Insert, Select, Update

Row = Mapping[str, Any]
Processor = Callable[[Any], Any]


@dataclass(frozen=True)
class PreparedSql:
    """SQL with `$1` for its values, and SQLAlchemy's conversions of values and results."""

    sql: bytes
    name: bytes
    """Name of the server's prepared statement, a hash of the SQL."""
    order: tuple[str, ...]
    """The values' names."""
    fixed: Row
    """Values that no row brings."""
    binds: tuple[tuple[str, Processor], ...]
    make: Callable[[Sequence[Any]], Any] | None
    """Makes a named tuple of a row; `None` if the statement returns no rows."""

    def values(self, row: Row) -> list[bytes | None]:
        """`row` in the order of the SQL, as text. Raises `ValueError` for a NUL."""
        found = {**self.fixed, **row}
        for name, process in self.binds:
            found[name] = process(found[name])
        values = [
            value if value is None else f"{value}".encode()
            for value in map(found.__getitem__, self.order)
        ]
        if any(value and 0 in value for value in values):
            raise ValueError(
                "a text for the database contains NUL"
            )  # libpq would truncate it there
        return values


class Prepared:
    """A statement of a hot path; SQLAlchemy compiles it once for each set of value names."""

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self.statement: Executable = statement
        self._made = statement
        self._texts: dict[tuple[str, ...], PreparedSql] = {}

    def text(self, dialect: Dialect, row: Row) -> PreparedSql:
        """The SQL for the names of `row`; `dialect` uses `numeric_dollar` parameters."""
        names = tuple(row)
        found = self._texts.get(names)
        if found is None:
            found = self._texts[names] = self._spell(dialect, names)
        return found

    def _spell(self, dialect: Dialect, names: tuple[str, ...]) -> PreparedSql:
        compiled: Any = self._made.compile(dialect=dialect, column_keys=list(names))
        columns = list(self._made.selected_columns) if isinstance(self._made, Select) else []
        binds = ((name, _in(bind.type, dialect)) for name, bind in compiled.binds.items())
        sql = str(compiled).encode()
        return PreparedSql(
            sql=sql,
            name=b"amani_" + hashlib.sha256(sql).hexdigest()[:24].encode(),
            order=tuple(compiled.positiontup),
            fixed={name: value for name, value in compiled.params.items() if name not in names},
            binds=tuple((name, process) for name, process in binds if process),
            make=_maker(columns, dialect) if columns else None,
        )


PreparedCall = tuple[Prepared, Row]
"""A statement and its values."""


def _maker(columns: Sequence[Any], dialect: Dialect) -> Callable[[Sequence[Any]], Any]:
    """Returns a function that makes rows of `columns`, converted by SQLAlchemy's types."""
    row = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc]
    made = ((place, _out(column.type, dialect)) for place, column in enumerate(columns))
    processed = [(place, process) for place, process in made if process]
    if not processed:
        return row._make

    def make(values: Sequence[Any]) -> Any:
        found = list(values)
        for place, process in processed:
            found[place] = process(found[place])
        return row._make(found)

    return make


def _in(kind: Any, dialect: Dialect) -> Processor | None:
    found: Processor | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return found


def _out(kind: Any, dialect: Dialect) -> Processor | None:
    found: Processor | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return found
