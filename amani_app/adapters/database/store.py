"""The `Store` of a SQLAlchemy engine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from time import sleep

from sqlalchemy import (
    Connection,
    Engine,
    String,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InvalidRequestError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from amani_app.adapters.database.escrows import DatabaseEscrows
from amani_app.adapters.database.ledger import DatabaseLedger
from amani_app.adapters.database.payments import DatabaseDeposits, DatabaseWithdrawals
from amani_app.adapters.database.prepared import PreparedCall, Prepared
from amani_app.adapters.database.queues import DatabaseInbox, DatabaseOutbox
from amani_app.adapters.database.statements import Statements, refusal
from amani_app.adapters.database.tables import audit_log, idempotency_keys, outbox, users
from amani_app.adapters.database.virtual_accounts import DatabaseVirtualAccounts
from amani_app.domain.users import Role, User
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.store import (
    StoredResponse,
    AuditLine,
    EmailTaken,
    OutboxEvent,
    KeyInUse,
    KeyReused,
    T,
    UnitOfWork,
)

TRIES = 5
LONGEST_WAIT = 0.2
"""The longest delay before a retry, in seconds; random, so that two do not conflict again."""
CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock, which are retried."""
NOT_PRIMARY = frozenset({"25006", "0A000"})
"""SQLSTATE of a write that a standby refuses, in a transaction or at its begin.

After a failover the primary is another server."""

_USER = Prepared(select(users).where(users.c.id == bindparam("wanted")))
_NAME = func.hashtextextended(bindparam("name", type_=String()), 0)
_LOCK_KEY = Prepared(select(func.pg_try_advisory_xact_lock(_NAME).label("locked")))
_ANSWERED = Prepared(
    select(
        idempotency_keys.c.fingerprint, idempotency_keys.c.status, idempotency_keys.c.body
    ).where(
        idempotency_keys.c.caller == bindparam("of"), idempotency_keys.c.key == bindparam("named")
    )
)
_KEEP = Prepared(insert(idempotency_keys))
_PUBLISH, _AUDIT = Prepared(insert(outbox)), Prepared(insert(audit_log))


class DatabaseUsers:
    """Users in one table, in which the email address is unique."""

    def __init__(self, statements: Statements) -> None:
        self._run = statements.now
        self._ask = statements.ask

    def add(self, user: User) -> None:
        try:
            self._run(insert(users).values(**_user_row(user)))
        except IntegrityError as error:
            raise EmailTaken(f"{user.email} has an account") from error

    def save(self, user: User) -> None:
        self._run(update(users).where(users.c.id == user.id).values(**_user_row(user)))

    def get(self, id: str) -> User:
        (found,) = self._ask((_USER, {"wanted": id}))
        if not found:
            raise KeyError(id)
        return _user(found[0])

    def by_email(self, email: str) -> User | None:
        row = self._run(select(users).where(users.c.email == email)).first()
        return _user(row) if row else None


class DatabaseIdempotency:
    """Stored responses in one table; PostgreSQL locks a key until the transaction ends."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    def foresee(self, caller: str, key: str) -> None:
        """Sends the queries of `claim` together with the next query."""
        self._statements.foresee(*self._asked(caller, key))

    def claim(self, caller: str, key: str, fingerprint: str) -> StoredResponse | None:
        """On PostgreSQL, takes an advisory lock on the key until the transaction ends."""
        *locks, answered = self._statements.ask(*self._asked(caller, key))
        if not all(row.locked for rows in locks for row in rows):
            raise KeyInUse("the first request with this Idempotency-Key is still running")
        if not answered:
            return None
        row = answered[0]
        if row.fingerprint != fingerprint:
            raise KeyReused("this Idempotency-Key was used with a different request")
        return StoredResponse(row.status, row.body)

    def _asked(self, caller: str, key: str) -> list[PreparedCall]:
        answered: PreparedCall = (_ANSWERED, {"of": caller, "named": key})
        if self._statements.dialect != "postgresql":
            return [answered]
        # The lock comes first, so that the query sees what the first request has committed.
        return [(_LOCK_KEY, {"name": f"{caller}/{key}"}), answered]

    def keep(
        self, caller: str, key: str, fingerprint: str, answer: StoredResponse, at: datetime
    ) -> None:
        """Deferred to the commit, like every insert without a result."""
        row = {"caller": caller, "key": key, "fingerprint": fingerprint, "created_at": at}
        self._statements.later(_KEEP, {**row, **vars(answer)})

    def amend(self, caller: str, key: str, body: str) -> None:
        c = idempotency_keys.c
        mine = update(idempotency_keys).where(c.caller == caller, c.key == key)
        self._statements.now(mine.values(body=body))

    def forget(self, before: datetime) -> int:
        old = idempotency_keys.c.created_at < before
        return self._statements.now(delete(idempotency_keys).where(old)).rowcount


class DatabaseUnitOfWork:
    """The repositories on one connection, each created when it is first used."""

    def __init__(
        self, connection: Connection, now: Callable[[], datetime], pipeline: bool = True
    ) -> None:
        self.statements = Statements(connection, pipeline)
        self._now = now

    # Lazy: most units of work use three repositories.

    @cached_property
    def ledger(self) -> DatabaseLedger:
        return DatabaseLedger(self.statements, self._now)

    @cached_property
    def escrows(self) -> DatabaseEscrows:
        return DatabaseEscrows(self.statements)

    @cached_property
    def deposits(self) -> DatabaseDeposits:
        return DatabaseDeposits(self.statements)

    @cached_property
    def virtual_accounts(self) -> DatabaseVirtualAccounts:
        return DatabaseVirtualAccounts(self.statements)

    @cached_property
    def withdrawals(self) -> DatabaseWithdrawals:
        return DatabaseWithdrawals(self.statements)

    @cached_property
    def inbox(self) -> DatabaseInbox:
        return DatabaseInbox(self.statements)

    @cached_property
    def outbox(self) -> DatabaseOutbox:
        return DatabaseOutbox(self.statements)

    @cached_property
    def users(self) -> DatabaseUsers:
        return DatabaseUsers(self.statements)

    @cached_property
    def idempotency(self) -> DatabaseIdempotency:
        return DatabaseIdempotency(self.statements)

    def publish(self, event: OutboxEvent) -> None:
        """Deferred to the commit; the worker claims the row."""
        row = {"id": event.id, "topic": event.topic, "subject": event.subject}
        more = {"payload": json.dumps(event.payload), "created_at": event.at}
        self.statements.later(_PUBLISH, {**row, **more})

    def audit(self, line: AuditLine) -> None:
        """Deferred to the commit; a trigger refuses changes of the row."""
        self.statements.later(_AUDIT, vars(line))

    def audited(self, before: str | None, limit: int) -> list[AuditLine]:
        query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.id < before)
        return [AuditLine(**row._mapping) for row in self.statements.now(query)]


class DatabaseStore:
    """The `Store` of `engine`. Without `pipeline` all statements go through SQLAlchemy."""

    def __init__(self, engine: Engine, now: Callable[[], datetime], pipeline: bool = True) -> None:
        self._pipeline = pipeline
        self._engine = engine
        self._reader = engine.execution_options(access="read")
        self._onlooker = engine.execution_options(access="look")
        self._now = now

    def run(self, action: Callable[[UnitOfWork], T]) -> T:
        """Retries a conflict `TRIES - 1` times, after random delays."""
        for _ in range(TRIES - 1):
            try:
                return self._once(self._engine, action)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in CONFLICTS:
                    raise
                sleep(random.uniform(0, LONGEST_WAIT))  # nosec B311
        return self._once(self._engine, action)

    def read(self, action: Callable[[UnitOfWork], T]) -> T:
        """The transaction takes no lock on SQLite, and is read-only on PostgreSQL."""
        return self._once(self._reader, action)

    def look(self, action: Callable[[UnitOfWork], T]) -> T:
        """Saves the two round trips of BEGIN and COMMIT."""
        return self._once(self._onlooker, action)

    def _once(self, engine: Engine, action: Callable[[UnitOfWork], T]) -> T:
        try:
            with _connect(engine) as connection:
                unit = DatabaseUnitOfWork(connection, self._now, self._pipeline)
                done = action(unit)
                unit.statements.commit()
                return done
        except IntegrityError as error:
            if refused := refusal(error):
                raise refused from error
            raise
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            orig = getattr(error, "orig", None)
            if getattr(orig, "sqlstate", None) in CONFLICTS:
                raise
            raise DatabaseUnavailable from error
        except DBAPIError as error:
            # Psycopg raises other classes as well for a lost connection.
            if error.connection_invalidated:
                raise DatabaseUnavailable from error
            # In a read-only transaction the same error means a bug.
            if engine is self._engine and getattr(error.orig, "sqlstate", None) in NOT_PRIMARY:
                self._engine.dispose()  # New connections may reach the primary.
                raise DatabaseUnavailable from error
            raise


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except InvalidRequestError as error:
        # Raised by the pool if all its connections, and new ones, are cut at once.
        raise DatabaseUnavailable from error


def _user_row(user: User) -> dict[str, Any]:
    return {**asdict(user), "role": user.role.value}


def _user(row: Any) -> User:
    return User(**{**row._asdict(), "role": Role(row.role)})
