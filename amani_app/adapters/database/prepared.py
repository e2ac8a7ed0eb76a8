"""Statements that are made once, and what they are for psycopg."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from sqlalchemy import Delete, Dialect, Executable, Insert, Select, Update

Row = t.Mapping[str, t.Any]
Processor = t.Callable[[t.Any], t.Any]


@dataclass(frozen=True)
class Text:
    """SQL for psycopg, and what SQLAlchemy's types do to the values that go in and come out."""

    sql: str
    fixed: Row
    """Values that no row brings."""
    binds: tuple[tuple[str, Processor], ...]
    results: tuple[tuple[str, Processor], ...]

    def values(self, row: Row) -> dict[str, t.Any]:
        """*row* for the driver."""
        found = {**self.fixed, **row}
        for name, process in self.binds:
            found[name] = process(found[name])
        return found

    def rows(self, rows: list[t.Any]) -> list[t.Any]:
        """Named tuples of the driver as SQLAlchemy's types would have them."""
        if not self.results:
            return rows
        return [
            row._replace(**{name: process(getattr(row, name)) for name, process in self.results})
            for row in rows
        ]


class Prepared:
    """A statement of a hot path.

    SQLAlchemy spells it out once for each set of values' names. Sending what it has spelled out
    costs Python a fifth of what it takes SQLAlchemy to look the spelling up and hand it on.
    """

    def __init__(self, statement: Select[t.Any] | Insert | Update | Delete) -> None:
        self.statement: Executable = statement
        self.reads = isinstance(statement, Select)
        self._made = statement
        self._texts: dict[tuple[str, ...], Text] = {}

    def text(self, dialect: Dialect, row: Row) -> Text:
        """The SQL for a row like *row*; *dialect* is always psycopg's."""
        names = tuple(row)
        found = self._texts.get(names)
        if found is None:
            found = self._texts[names] = self._spell(dialect, names)
        return found

    def _spell(self, dialect: Dialect, names: tuple[str, ...]) -> Text:
        compiled: t.Any = self._made.compile(dialect=dialect, column_keys=list(names))
        columns = self._made.selected_columns if isinstance(self._made, Select) else ()
        binds = ((name, _in(bind.type, dialect)) for name, bind in compiled.binds.items())
        results = ((column.name, _out(column.type, dialect)) for column in columns)
        return Text(
            sql=str(compiled),
            fixed={name: value for name, value in compiled.params.items() if name not in names},
            binds=tuple((name, process) for name, process in binds if process),
            results=tuple((name, process) for name, process in results if process),
        )


def _in(kind: t.Any, dialect: Dialect) -> Processor | None:
    found: Processor | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return found


def _out(kind: t.Any, dialect: Dialect) -> Processor | None:
    found: Processor | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return found
