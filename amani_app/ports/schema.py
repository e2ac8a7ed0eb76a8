"""The database's schema as the service sees it: which revision is live, which one it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class DatabaseUnavailable(Exception):
    """The database is unreachable or did not answer in time."""


class UnknownRevision(ValueError):
    """A revision that these migrations do not hold."""


class SchemaSource(Protocol):
    @property
    def expected(self) -> str:
        """The revision that this code needs: the head of its own migrations."""

    @property
    def insufficient(self) -> frozenset[str]:
        """Known revisions that are too old for this code."""

    def live(self) -> str | None:
        """The revision of the database, `None` before the first migration.

        Raises `DatabaseUnavailable`.
        """

    def losses(self, revision: str) -> Iterator[str]:
        """One line for each table and column that a downgrade to `revision` drops with data in it.

        Example: `table inbox: 12 rows`. Raises `UnknownRevision` if `revision` is not one of
        these migrations, or is not older than the live one.
        """
