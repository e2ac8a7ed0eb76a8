"""The books after a short storm; `invoke bench.chaos` is the long one."""

from __future__ import annotations

import pytest

from tests.support.postgres import PostgresServer
from tests.support.service_fixtures import Shell
from workshop.bench.api_client import ApiAnswer, ApiRequest, ApiUser
from workshop.bench.chaos import run
from workshop.bench.ledger_checks import LedgerChecks, OperatorDeposit

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


def test_books_say_what_callers_were_told_though_workers_and_database_die() -> None:
    figures = run(clients=8, seconds=8)
    assert figures["differences"] == []
    assert figures["workers_killed"] > 0
    assert figures["database_restarted_in_seconds"] > 0
    assert figures["acknowledged"] > 0
    assert figures["replayed"] >= figures["acknowledged"]


@pytest.fixture
def told(postgres_server: PostgresServer, migrated_template: str) -> LedgerChecks:
    """The books of somebody whose agreement, as it says, was made and whose deposit was booked."""
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


def test_an_acknowledged_request_without_a_trace_is_a_difference(told: LedgerChecks) -> None:
    assert any("acknowledged, and gone" in line for line in told.differences())


def test_two_first_answers_are_a_difference(told: LedgerChecks) -> None:
    told.requests[0].answers.append(told.requests[0].answers[0])
    assert any("done twice" in line for line in told.differences())


def test_a_balance_that_nobody_was_told_of_is_a_difference(told: LedgerChecks) -> None:
    told.deposits.clear()
    found = told.differences()
    assert any("nobody did it" in line for line in found)
    assert any("has 1000, must have 0" in line for line in found)
