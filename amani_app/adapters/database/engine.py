"""The engine: one Flask-SQLAlchemy extension, with limits on every wait."""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, MetaData, event
from sqlalchemy.exc import DisconnectionError

from amani_app.settings import Settings

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint gets a name, so that a later migration can drop it."""

db = SQLAlchemy(metadata=MetaData(naming_convention=NAMING))

OPENINGS: Mapping[str, Mapping[str, str]] = {
    "postgresql": {"write": "BEGIN", "read": "BEGIN READ ONLY"},
    "sqlite": {"write": "BEGIN IMMEDIATE", "read": "BEGIN DEFERRED"},
}
"""How a transaction begins, by the execution option `access`; `look` begins none."""

POOLED = "amani.pooled"
"""Key in a connection's info: whether a pooler may run each transaction in another session."""

STATEMENT_TIMEOUT = 10_000
"""Statement timeout of a request in milliseconds, below those of gunicorn and the proxy."""


def install_engine(app: Flask, settings: Settings) -> None:
    """Give `app` its engine; no connection is opened."""
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database
    if settings.database.startswith("sqlite"):
        options: dict[str, Any] = {"connect_args": {"timeout": 5}}
        if not settings.database_url.get_secret_value():
            settings.data_dir.mkdir(parents=True, exist_ok=True)
    else:
        options = {
            "pool_size": settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": 3,
            "pool_recycle": 1800,
            # Our own BEGIN is sent together with the first statement.
            "isolation_level": "AUTOCOMMIT",
            "connect_args": {
                "connect_timeout": settings.database_connect_timeout,
                "application_name": "amani",
                "client_encoding": "utf8",
                **_session(bool(settings.direct_database)),
            },
        }
    # Errors are logged with their statements, but not with values, which are personal data.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"hide_parameters": True, **options}
    db.init_app(app)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            tune_sqlite(db.engine)
        else:
            tune_postgres(db.engine, pooled=bool(settings.direct_database))
            watch_sockets(db.engine)


def _session(pooled: bool) -> dict[str, Any]:
    """Session options; none behind a pooler, because each transaction may use another session."""
    if pooled:
        return {}
    timeouts = ("statement_timeout", "idle_in_transaction_session_timeout")
    return {"options": " ".join(f"-c {name}={STATEMENT_TIMEOUT}" for name in timeouts)}


def opening(connection: Connection) -> str | None:
    """The statement that begins a transaction; `None` if each statement is its own."""
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return None
    return OPENINGS[connection.dialect.name].get(options.get("access", "write"))


def begin_explicitly(engine: Engine) -> None:
    """Send our own BEGIN, because the driver sends none."""

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if engine.dialect.name == "postgresql" and driver.info.transaction_status.name != "IDLE":
            return  # begun outside SQLAlchemy, by the pipeline
        if statement := opening(connection):
            connection.exec_driver_sql(statement)


def tune_postgres(engine: Engine, pooled: bool) -> None:
    """Manage transactions and prepared statements ourselves; `engine` must use AUTOCOMMIT.

    If psycopg prepares statements itself, it deallocates all of them, ours included, after a
    rollback. If `pooled`, no statement is prepared.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        connection.prepare_threshold = None
        record.info[POOLED] = pooled

    begin_explicitly(engine)


def watch_sockets(engine: Engine) -> None:
    """Replace a pooled connection that the server has closed.

    Its socket is readable then: one `poll` detects that, without the round trip of a ping before
    every transaction.
    """

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, _record: Any, _proxy: Any) -> None:
        idle = select.poll()
        if not connection.closed:
            idle.register(connection.fileno(), select.POLLIN)
        if connection.closed or idle.poll(0):
            raise DisconnectionError("the server has closed the connection")


def tune_sqlite(engine: Engine, foreign_keys: bool = True) -> None:
    """WAL, foreign keys, and explicit transactions.

    The driver's own transactions begin late and do not cover DDL (see the sqlite3 documentation).
    With autocommit and BEGIN IMMEDIATE a failed migration is rolled back, and a second writer
    waits at the start instead of failing at its first write.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        keys = f"foreign_keys={'ON' if foreign_keys else 'OFF'}"
        for pragma in ("journal_mode=WAL", keys, "synchronous=NORMAL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    begin_explicitly(engine)
