"""Counts the statements that are sent to a database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, event

from amani_app.adapters.database.prepared import PreparedSql
from amani_app.adapters.database.wire import LibpqPipeline


class Sent(list[str]):
    """Statements, and the number of round trips that they took."""

    round_trips = 0


@contextlib.contextmanager
def counted(engine: Engine) -> Iterator[Sent]:
    """The statements of the block in order, sent with and without SQLAlchemy, except those that
    begin and end transactions."""
    found = Sent()

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            found.append(statement)
        found.round_trips += 1

    send = LibpqPipeline._send

    def sent(wire: LibpqPipeline, start: bytes, texts: Sequence[PreparedSql], *rest: Any) -> Any:
        found.extend(text.sql.decode() for text in texts)
        found.round_trips += 1
        return send(wire, start, texts, *rest)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LibpqPipeline, "_send", sent)
            yield found
    finally:
        event.remove(engine, "before_cursor_execute", listen)
