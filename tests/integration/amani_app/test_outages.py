"""Answers to clients while the database is unreachable: a real one, stopped and restarted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amani_app import create_app
from amani_app.api.operations import Operation
from amani_app.api.routes import OPERATIONS
from amani_app.settings import Settings
from tests.support.people import API, PASSWORD, UNLIMITED, Person, World, cheapen_hashing
from tests.support.postgres import PostgresServer
from tests.support.service_fixtures import SECRET_KEY, Shell
from tests.support.waiting import eventually


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.mark.postgres
def test_every_route_answers_503_with_retry_after_until_the_database_returns(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheapen_hashing(monkeypatch)
    url = server.url(server.create_database())
    Shell(DATABASE_URL=url).ok("flask", "db", "upgrade")
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY, **UNLIMITED))
    world = World(app)
    ada = world.person("ada")
    server.stop("immediate")
    asked = [ask(world, ada, operation) for operation, _ in OPERATIONS if not operation.raw]
    assert len(asked) >= 20
    server.start()
    eventually(lambda: ada.get("/wallets").status_code == 200)
    app.extensions["amani"].engine.dispose()


def ask(world: World, person: Person, operation: Operation) -> str:
    """Call an operation, assert that it answers 503, and return its name."""
    path = operation.path.replace("{", "").replace("}", "")
    bodies = {
        "sign_up": {"email": "ben@example.org", "name": "Ben", "password": PASSWORD},
        "sign_in": {"email": person.email, "password": PASSWORD},
    }
    if operation.roles is None:
        found = world.client.post(f"{API}{path}", json=bodies[operation.name])
    else:
        found = person.call(operation.method, path)
    assert (found.status_code, found.json["code"]) == (503, "database-unavailable"), operation.name
    assert found.headers["Retry-After"] == "2"
    assert found.content_type == "application/problem+json"
    return operation.name
