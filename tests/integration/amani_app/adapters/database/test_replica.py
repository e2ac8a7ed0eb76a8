"""The service on a streaming replica, before and after its promotion."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from amani_app import create_app
from amani_app.settings import Settings
from tests.support.people import API, UNLIMITED, Person, World, cheapen_hashing
from tests.support.postgres import PostgresServer, Standby
from tests.support.service_fixtures import SECRET_KEY, Shell
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgres


@pytest.fixture
def servers() -> Iterator[tuple[PostgresServer, Standby]]:
    primary = PostgresServer()
    primary.start()
    standby = Standby(primary)
    standby.start()
    yield primary, standby
    standby.remove()
    primary.remove()


def start(server: PostgresServer | Standby) -> Flask:
    url = server.url()
    return create_app(Settings(database_url=url, secret_key=SECRET_KEY, **UNLIMITED))


def test_a_replica_answers_reads_and_rejects_writes_until_it_is_promoted(
    servers: tuple[PostgresServer, Standby],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cheapen_hashing(monkeypatch)
    primary, standby = servers
    Shell(DATABASE_URL=primary.url()).ok("flask", "db", "upgrade")
    world, replica = World(start(primary)), start(standby)
    ada = world.person("ada")
    world.deposit(ada, 5_000)
    session = {"user": {"id": ada.id, "email": ada.email}, "token": ada.token}
    there = Person(replica.test_client(), session)

    def caught_up() -> bool:
        found = there.get("/wallets")
        return found.status_code == 200 and found.json == ada.get("/wallets").json

    assert eventually(caught_up)
    wallet = ada.get("/wallets").json["items"][0]["id"]
    for path in (f"/wallets/{wallet}/entries", "/escrows", "/deposits", "/withdrawals"):
        assert there.get(path).json == ada.get(path).json
    differences = replica.extensions["amani"].store.read(lambda unit: unit.ledger.differences())
    assert differences == []
    body = {"email": "ben@example.org", "name": "Ben", "password": "a new long password"}
    for _ in range(2):
        found = replica.test_client().post(f"{API}/auth/signup", json=body)
        assert (found.status_code, found.json["code"]) == (503, "database-unavailable")
        assert int(found.headers["Retry-After"]) > 0
    primary.stop("immediate")
    standby.promote()
    made = replica.test_client().post(f"{API}/auth/signup", json=body)
    assert made.status_code == 201, made.text
    assert there.get("/wallets").json["items"][0]["available"]["minor"] == 5_000
    assert "Traceback" not in capfd.readouterr().err
    for app in (world.app, replica):
        app.extensions["amani"].engine.dispose()
    primary.start()
