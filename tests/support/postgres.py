"""The PostgreSQL server of the tests."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from workshop.bench import postgres


class PostgresServer(postgres.PostgresServer):
    """A server without fsync: its data does not outlive the tests."""

    def __init__(self) -> None:
        super().__init__({"fsync": "off"})
        self._numbers = itertools.count(1)

    def create_database(self, template: str = "template1") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = f"amani_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name


class Standby(postgres.PostgresServer):
    """A streaming replica of `primary`, read-only until `promote`."""

    def __init__(self, primary: postgres.PostgresServer) -> None:
        super().__init__({"fsync": "off", "hot_standby_feedback": "on"})
        where = ("-h", str(primary._home), "-U", "amani")
        self._run("pg_basebackup", *where, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def promote(self) -> None:
        """Promote the replica to primary."""
        self._run("pg_ctl", "-w", "promote")


class GivenServer:
    """A running server, such as the service container of a CI job. The databases of the tests have
    unique names, and `remove` drops them."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql")
        self._prefix = f"amani_{uuid.uuid4().hex[:12]}"
        self._names = (f"{self._prefix}_{number}" for number in itertools.count(1))
        self._made: list[str] = []

    def start(self) -> None:
        """Connect once. Raises `psycopg.OperationalError` if the server does not answer."""
        with psycopg.connect(self.url()):
            pass

    def url(self, database: str = "") -> str:
        """The URL of `database`, or of the database in the given URL."""
        url = self._url.set(database=database) if database else self._url
        return url.render_as_string(hide_password=False)

    def create_database(self, template: str = "template1") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = next(self._names)
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        self._made.append(name)
        return name

    def rows(self, query: str, database: str = "") -> list[dict[str, Any]]:
        """The rows of `query`, by column."""
        wrapped = " ".join(("SELECT row_to_json(q) FROM (", query, ") q"))
        with psycopg.connect(self.url(database)) as connection:
            return [row for (row,) in connection.execute(wrapped.encode())]

    def remove(self) -> None:
        """Drop the databases of the tests."""
        while self._made:
            self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", self._made.pop())

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
