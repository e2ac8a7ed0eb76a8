"""The PostgreSQL server of the tests."""

from __future__ import annotations

import itertools

import psycopg
from psycopg import sql

from deploy.bench import postgres


class PostgresServer(postgres.PostgresServer):
    """Nothing on it outlives the tests, so it need not wait for the disk."""

    def __init__(self) -> None:
        super().__init__({"fsync": "off"})
        self._numbers = itertools.count(1)

    def create_database(self, template: str = "template1") -> str:
        """A new database, by copy of *template*; its name."""
        name = f"amani_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name
