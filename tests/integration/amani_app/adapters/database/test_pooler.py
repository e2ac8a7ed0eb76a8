"""The service behind PgBouncer in transaction mode, with fewer connections than it has threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text

from amani_app import create_app
from amani_app.adapters.database.engine import STATEMENT_TIMEOUT
from amani_app.adapters.database.revisions import read_revisions
from amani_app.settings import Settings
from tests.support.people import UNLIMITED, Person, World, cheapen_hashing
from tests.support.pooler import Pooler
from tests.support.service_fixtures import SECRET_KEY, Shell

pytestmark = pytest.mark.postgres
CONNECTIONS = 2


@pytest.fixture
def direct(postgres_engine: Engine) -> str:
    """The direct URL, without the pooler, of a migrated database."""
    database = postgres_engine.url
    with postgres_engine.begin() as connection:
        told = f"statement_timeout = {STATEMENT_TIMEOUT}"
        connection.execute(text(f"ALTER DATABASE {database.database} SET {told}"))
    postgres_engine.dispose()
    return database.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def pooler(direct: str) -> Iterator[Pooler]:
    pooler = Pooler(direct, CONNECTIONS)
    pooler.start()
    yield pooler
    pooler.remove()


@pytest.fixture
def world(pooler: Pooler, direct: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    cheapen_hashing(monkeypatch)
    told = {"database_url": pooler.url, "database_direct_url": direct, "database_pool_size": 8}
    app = create_app(Settings(secret_key=SECRET_KEY, **told, **UNLIMITED))
    yield World(app)
    app.extensions["amani"].engine.dispose()


def test_many_threads_share_two_connections(world: World, direct: str) -> None:
    """Locked rows, idempotency keys and prepared statements work on any pooled connection."""
    ada, ben = world.person("ada"), world.person("ben")
    world.deposit(ada, 80_000)
    backends: set[int] = set()
    engine = world.parts.engine

    @event.listens_for(engine, "checkin")
    def _note(connection: Any, _record: Any) -> None:
        backends.add(connection.execute("SELECT pg_backend_pid()").fetchone()[0])
        connection.rollback()

    def trade(_number: int) -> list[tuple[str, int, str]]:
        return agree(world, ada, ben)

    with ThreadPoolExecutor(8) as threads:
        answers = [each for found in threads.map(trade, range(8)) for each in found]
    assert {status for _, status, _ in answers} <= {200, 201, 409}
    refused = [code for _, status, code in answers if status == 409]
    assert set(refused) <= {"idempotency-key-in-use"}
    assert (world.available(ada), world.available(ben)) == (0, 76_000)
    assert 1 <= len(backends) <= CONNECTIONS
    store = world.parts.store
    assert store.read(lambda unit: unit.ledger.differences()) == []


def agree(world: World, ada: Person, ben: Person) -> list[tuple[str, int, str]]:
    """An agreement of 100 naira, from the proposal to the payment; each step is requested twice."""
    client, freelancer = (Person(world.app.test_client(), session(each)) for each in (ada, ben))
    made = client.call("POST", "/escrows", json=world.proposal(freelancer, 10_000))
    assert made.status_code == 201, made.json
    id, milestone = made.json["id"], made.json["milestones"][0]["id"]
    steps = (
        (freelancer, f"/escrows/{id}/accept"),
        (client, f"/escrows/{id}/fund"),
        (freelancer, f"/escrows/{id}/milestones/{milestone}/submit"),
        (client, f"/escrows/{id}/milestones/{milestone}/approve"),
    )
    found = []
    for version, (who, path) in enumerate(steps, 1):
        key = f"{path}-{version}"
        with ThreadPoolExecutor(2) as twice:
            asked = [twice.submit(who.act, path, version, key) for _ in range(2)]
            found += [each.result() for each in asked]
    return [
        (each.request.path, each.status_code, (each.json or {}).get("code", "")) for each in found
    ]


def session(person: Person) -> dict[str, Any]:
    return {"user": {"id": person.id, "email": person.email}, "token": person.token}


def test_without_the_direct_url_the_pooler_refuses_or_loses_prepared_statements(
    pooler: Pooler, direct: str
) -> None:
    plain = Settings(database_url=pooler.url, secret_key=SECRET_KEY)
    app = create_app(plain)
    found = app.test_client().get("/api/v1/readiness")
    assert found.status_code == 503
    app.extensions["amani"].engine.dispose()
    # By default the driver prepares a statement that it executes more than five times.
    lenient = Pooler(direct, CONNECTIONS, ignore_startup_parameters="options")
    lenient.start()
    with pytest.raises(psycopg.Error, match="prepared statement"):
        prepare_in_two_sessions(lenient.url)
    lenient.remove()


def prepare_in_two_sessions(url: str) -> None:
    with psycopg.connect(url, prepare_threshold=1) as one, psycopg.connect(url) as other:
        for number in range(20):
            one.execute("SELECT %s::int", [number])
            one.commit()
            other.execute("SELECT 1")  # keeps the session that the first one prepared in
            one.execute("SELECT %s::int", [number])
            one.commit()
            other.commit()


def test_statement_timeout_comes_from_the_database(world: World) -> None:
    with world.parts.engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "10s"


def test_migrations_connect_directly_without_the_pooler(pooler: Pooler, direct: str) -> None:
    """Their lock belongs to a session, and in transaction mode the pooler shares sessions."""
    shell = Shell(DATABASE_URL=pooler.url, DATABASE_DIRECT_URL=direct)
    pooler.remove()
    assert shell.ok("flask", "db", "current") == f"{read_revisions()[0]} (head)"


@pytest.mark.parametrize(
    ("url", "direct", "word"),
    [
        ("", "postgresql://a@h/d", "DATABASE_URL"),
        ("postgresql://a@h/d", "sqlite:///x", "DATABASE_DIRECT_URL"),
    ],
)
def test_an_invalid_direct_url_is_refused(url: str, direct: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Settings(database_url=url, database_direct_url=direct)
