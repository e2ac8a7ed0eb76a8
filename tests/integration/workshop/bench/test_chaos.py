"""Ledger invariants after a short run of `invoke bench.chaos`."""

from __future__ import annotations

import pytest

from tests.support.postgres import PostgresServer
from tests.support.service_fixtures import Shell
from workshop.bench.api_client import ApiAnswer, ApiRequest, ApiUser
from workshop.bench.chaos import run
from workshop.bench.ledger_checks import LedgerChecks, OperatorDeposit

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


def test_the_ledger_matches_the_answers_after_workers_and_database_are_killed() -> None:
    figures = run(clients=8, seconds=8)
    assert figures["differences"] == []
    assert figures["workers_killed"] > 0
    assert figures["database_restarted_in_seconds"] > 0
    assert figures["acknowledged"] > 0
    assert figures["replayed"] >= figures["acknowledged"]


@pytest.fixture
def told(postgres_server: PostgresServer, migrated_template: str) -> LedgerChecks:
    """Checks of a ledger with a deposit, and an acknowledged escrow that is not stored."""
    name = postgres_server.create_database(migrated_template)
    shell = Shell(DATABASE_URL=postgres_server.url(name))
    email = "ada@example.org"
    shell.environ["AMANI_PASSWORD"] = "correct horse battery"
    ada = shell.ok("flask", "amani", "user-create", email, "--name=Ada")
    shell.ok("flask", "amani", "deposit", email, "10.00", "--reference=d1")
    body = {"id": "e1", "version": 1, "milestones": []}
    request = ApiRequest(ApiUser(ada, email, ""), "/escrows", {})
    request.answers.append(ApiAnswer(201, body))
    checks = LedgerChecks(
        postgres_server, [request], [OperatorDeposit(ada, "d1", 1000, done=True)], name
    )
    assert checks.differences() != []
    return checks


def test_an_acknowledged_request_that_is_not_stored_is_a_difference(told: LedgerChecks) -> None:
    assert any("acknowledged, but not stored" in line for line in told.differences())


def test_two_first_answers_are_a_difference(told: LedgerChecks) -> None:
    told.requests[0].answers.append(told.requests[0].answers[0])
    assert any("executed twice" in line for line in told.differences())


def test_a_balance_without_a_request_is_a_difference(told: LedgerChecks) -> None:
    told.deposits.clear()
    found = told.differences()
    assert any("but not requested" in line for line in found)
    assert any("balance 1000, expected 0" in line for line in found)
