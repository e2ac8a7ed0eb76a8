"""The number of statements that frequent routes need, so that an increase fails a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from amani_app import create_app
from amani_app.adapters.database.tables import idempotency_keys
from amani_app.settings import Settings
from tests.support.counting import counted
from tests.support.people import UNLIMITED, Person, World, cheapen_hashing
from tests.support.postgres import PostgresServer
from tests.support.service_fixtures import SECRET_KEY

pytestmark = pytest.mark.postgres


@pytest.fixture
def world(
    postgres_server: PostgresServer, migrated_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    cheapen_hashing(monkeypatch)
    url = postgres_server.url(postgres_server.create_database(migrated_template))
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY, **UNLIMITED))
    yield World(app)
    app.extensions["amani"].engine.dispose()


@pytest.fixture
def ada(world: World) -> Person:
    person = world.person("ada")
    world.deposit(person, 1_000_000)
    return person


def submitted(world: World, ada: Person, bob: Person) -> tuple[str, str]:
    """An agreement of `ada` whose first milestone waits for her, at version 4; both paths."""
    made = ada.act("/escrows", 0, body=world.proposal(bob, 5000, 7000)).json
    escrow = f"/escrows/{made['id']}"
    milestone = f"{escrow}/milestones/{made['milestones'][0]['id']}"
    assert bob.act(f"{escrow}/accept", 1).status_code == 200
    assert ada.act(f"{escrow}/fund", 2).status_code == 200
    assert bob.act(f"{milestone}/submit", 3).status_code == 200
    return escrow, milestone


def test_a_page_of_entries_needs_three_statements_at_any_page_size(
    world: World, ada: Person
) -> None:
    wallet = ada.get("/wallets").json["items"][0]["id"]
    for _ in range(60):
        world.deposit(ada, 100)
    for limit in (1, 50):
        with counted(world.parts.engine) as statements:
            page = ada.get(f"/wallets/{wallet}/entries?limit={limit}").json
        assert len(page["items"]) == limit
        assert len(statements) == 3, statements


def test_a_page_of_agreements_needs_two_statements_at_any_page_size(
    world: World, ada: Person
) -> None:
    bob = world.person("bob")
    for _ in range(12):
        assert ada.act("/escrows", 0, body=world.proposal(bob, 1, 2, 3)).status_code == 201
    for limit in (1, 12):
        with counted(world.parts.engine) as statements:
            page = ada.get(f"/escrows?limit={limit}").json
        assert len(page["items"]) == limit
        assert len(statements) == 2, statements


@pytest.mark.parametrize(("path", "wanted"), [("/auth/me", 2), ("/wallets", 2)])
def test_own_account_and_wallets_need_two_statements_each(
    world: World, ada: Person, path: str, wanted: int
) -> None:
    with counted(world.parts.engine) as statements:
        assert ada.get(path).status_code == 200
    assert len(statements) == wanted, statements


def test_an_agreement_is_read_with_two_statements(world: World, ada: Person) -> None:
    escrow, _ = submitted(world, ada, world.person("bob"))
    with counted(world.parts.engine) as statements:
        assert ada.get(escrow).status_code == 200
    assert len(statements) == 2, statements


def test_a_release_needs_fourteen_statements_in_three_round_trips(
    world: World, ada: Person
) -> None:
    _, milestone = submitted(world, ada, world.person("bob"))
    with counted(world.parts.engine) as statements:
        assert ada.act(f"{milestone}/approve", 4).status_code == 200
    assert len(statements) == 14, "\n".join(statements)
    # Read the caller and the key; lock the agreement; write and commit.
    assert statements.round_trips == 3


def test_a_repeated_release_reads_its_answer_and_writes_nothing(world: World, ada: Person) -> None:
    _, milestone = submitted(world, ada, world.person("bob"))
    assert ada.act(f"{milestone}/approve", 4, key="the-same-key").status_code == 200
    with counted(world.parts.engine) as statements:
        again = ada.act(f"{milestone}/approve", 4, key="the-same-key")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(statements) == 3, statements
    assert statements.round_trips == 2
    assert all(statement.startswith("SELECT") for statement in statements)


def test_no_error_quotes_the_values_of_its_statement(world: World, ada: Person) -> None:
    """Errors are logged; values may be names, account numbers or hashes."""
    with pytest.raises(IntegrityError) as refused, world.parts.engine.begin() as connection:
        for _ in range(2):
            connection.execute(insert(idempotency_keys).values(
                caller=ada.id, key="k", fingerprint="f", status=1, body="a secret",
                created_at=world.parts.context.now()))  # fmt: skip
    assert "a secret" not in str(refused.value)


def test_a_connection_that_the_server_ended_is_replaced(world: World, ada: Person) -> None:
    assert ada.get("/wallets").status_code == 200
    with world.parts.engine.connect() as other:
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> "
        ended += "pg_backend_pid() AND datname = current_database()"
        idle = [world.parts.engine.connect() for _ in range(2)]
        for each in idle:
            each.close()
        assert other.exec_driver_sql(ended).scalars().all() == [True, True]
    for _ in range(4):
        assert ada.get("/wallets").status_code == 200
