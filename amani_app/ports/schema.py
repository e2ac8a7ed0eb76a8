"""The database's schema as the service sees it: which revision is live, which one it needs."""

from __future__ import annotations

import typing as t


class DatabaseUnavailable(Exception):
    """The database cannot be reached or does not answer in time."""


class SchemaSource(t.Protocol):
    """Tells the schema's revisions."""

    @property
    def expected(self) -> str:
        """The revision that this code needs: the head of its own migrations."""

    @property
    def insufficient(self) -> frozenset[str]:
        """Revisions of its own that this code cannot run on."""

    def live(self) -> str | None:
        """The revision of the database, ``None`` before the first migration.

        Raises ``DatabaseUnavailable``.
        """
