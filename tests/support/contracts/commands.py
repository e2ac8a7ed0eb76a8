"""The contract of `flask amani reconcile`, and fixtures of the commands' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from amani_app.adapters.database.store import DatabaseStore
from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.container import new_id, utc_now
from amani_app.domain.ledger import Account, AccountKind, PendingTransfer
from amani_app.domain.money import Money
from amani_app.domain.payments import Deposit, DepositState, Destination, Withdrawal
from amani_app.domain.payments import WithdrawalState as State
from amani_app.domain.users import Role, User
from tests.support.service_fixtures import Shell

BANK = Destination("044", "0123456789", "Ada Obi")
PASSWORD = "a long enough password"


@pytest.fixture
def shell(engine: Engine, tmp_path: Path) -> Shell:
    url = engine.url.render_as_string(hide_password=False)
    return Shell(DATABASE_URL=url, TMPDIR=str(tmp_path), AMANI_PASSWORD=PASSWORD)


@pytest.fixture
def store(engine: Engine) -> DatabaseStore:
    return DatabaseStore(engine, utc_now)


@pytest.fixture
def ada(store: DatabaseStore) -> str:
    """The id of a user."""
    ada = User("u-ada", "ada@example.org", "Ada", Role.MEMBER, "hash", utc_now())
    store.run(lambda unit: unit.users.add(ada))
    return ada.id


@pytest.fixture
def ten(store: DatabaseStore, ada: str) -> None:
    """Ten naira in the wallet of Ada."""
    context, money = Context(utc_now, new_id), Money(1_000, "NGN")
    collected = DepositUseCases(context).collected
    store.run(lambda unit: collected(unit, Actor("test"), ada, "b-1", money, money))


def posted(store: DatabaseStore, owner: str) -> int:
    account = Account(AccountKind.WALLET, "NGN", owner)
    return store.read(lambda unit: unit.ledger.balance(account)).posted.minor


def under_way(store: DatabaseStore, owner: str, state: State = State.REQUESTED) -> tuple[str, str]:
    """The ids of a pending deposit of 5 naira and of a withdrawal of 4."""
    now = utc_now()
    deposit = Deposit(new_id(), owner, Money(500, "NGN"), now, DepositState.PENDING, "link")
    withdrawal = Withdrawal(new_id(), owner, Money(400, "NGN"), BANK, now, state)
    wallet = Account(AccountKind.WALLET, "NGN", owner)

    def change(unit: Any) -> None:
        unit.deposits.add(deposit, now)
        id = withdrawal.id
        unit.ledger.reserve(PendingTransfer(id, "withdraw", id, wallet, withdrawal.amount))
        unit.withdrawals.add(withdrawal)
        unit.withdrawals.save(withdrawal, now)

    store.run(change)
    return deposit.id, withdrawal.id


@pytest.mark.usefixtures("ten")
class TestReconcile:
    def test_correct_books_print_nothing(
        self, shell: Shell, store: DatabaseStore, ada: str
    ) -> None:
        under_way(store, ada)
        assert shell.ok("flask", "amani", "reconcile") == ""

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("UPDATE accounts SET posted = posted + 1 WHERE kind = 'wallet'", "holds 1001"),
            ("UPDATE accounts SET reserved = 1 WHERE kind = 'wallet'", "reserves 1"),
            ("UPDATE deposits SET state = 'suspended'", "is suspended, and has 0 transfers"),
            ("UPDATE withdrawals SET state = 'paid'", "is paid, its reservation is open"),
            ("UPDATE withdrawals SET corrected = true", "was corrected 0 times"),
        ],
    )
    def test_each_difference_is_reported(
        self, shell: Shell, engine: Engine, store: DatabaseStore, ada: str, damage: str, said: str
    ) -> None:
        under_way(store, ada)
        with engine.begin() as connection:
            connection.execute(text(damage))
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert said in done.stdout
