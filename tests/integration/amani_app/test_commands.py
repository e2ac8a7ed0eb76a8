"""The commands of an operator, as programs on a real database."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from amani_app.adapters.database.store import DatabaseStore
from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.container import new_id, utc_now
from amani_app.domain.ledger import Account, AccountKind, PendingTransfer
from amani_app.domain.money import Money
from amani_app.domain.payments import Deposit, DepositState, Destination, Withdrawal
from amani_app.domain.payments import WithdrawalState as State
from amani_app.domain.users import Role, User
from amani_app.ports.payments import Inflow, PaymentOutcome
from tests.support.sandboxes import API_KEY, WEBHOOK_SECRET, Sandbox
from tests.support.service_fixtures import Shell, free_port

BANK = Destination("044", "0123456789", "Ada Obi")
PASSWORD = "a long enough password"


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:
    """Where the kind of database makes no difference."""
    return sqlite_engine


@pytest.fixture
def shell(engine: Engine, tmp_path: Path) -> Shell:
    url = engine.url.render_as_string(hide_password=False)
    return Shell(DATABASE_URL=url, TMPDIR=str(tmp_path), AMANI_PASSWORD=PASSWORD)


@pytest.fixture
def store(engine: Engine) -> DatabaseStore:
    return DatabaseStore(engine, utc_now)


@pytest.fixture
def ada(store: DatabaseStore) -> str:
    """The id of somebody."""
    ada = User("u-ada", "ada@example.org", "Ada", Role.MEMBER, "hash", utc_now())
    store.run(lambda unit: unit.users.add(ada))
    return ada.id


@pytest.fixture
def ten(store: DatabaseStore, ada: str) -> None:
    """Ten naira in her wallet."""
    context, money = Context(utc_now, new_id), Money(1_000, "NGN")
    collected = DepositUseCases(context).collected
    store.run(lambda unit: collected(unit, Actor("test"), ada, "b-1", money, money))


def posted(store: DatabaseStore, owner: str) -> int:
    account = Account(AccountKind.WALLET, "NGN", owner)
    return store.read(lambda unit: unit.ledger.balance(account)).posted.minor


class TestUserCreate:
    @pytest.mark.parametrize("role", ["member", "arbiter", "admin"])
    def test_a_person_of_each_role_can_be_made(
        self, shell: Shell, store: DatabaseStore, role: str
    ) -> None:
        words = ("user-create", "Ada@Example.org", "--name", "Ada", "--role", role)
        id = shell.ok("flask", "amani", *words)
        found = store.read(lambda unit: unit.users.get(id))
        assert (found.email, found.role) == ("ada@example.org", Role(role))
        assert found.password_hash.startswith("$argon2id$")
        (line,) = store.read(lambda unit: unit.audited(None, 10))
        assert (line.action, line.subject) == ("user.signed-up", id)

    def test_the_first_administrator_is_made(self, shell: Shell, store: DatabaseStore) -> None:
        id = shell.ok("flask", "amani", "admin", "create", "Root@Example.org")
        found = store.read(lambda unit: unit.users.get(id))
        assert (found.email, found.role) == ("root@example.org", Role.ADMIN)

    def test_an_address_is_taken_once(self, shell: Shell, ada: str) -> None:
        done = shell.run("flask", "amani", "user-create", "ada@example.org", "--name", "Other")
        assert done.returncode == 1
        assert "ada@example.org has an account" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("words", [["--role", "king"], []])
    def test_wrong_usage_is_told(self, shell: Shell, words: list[str]) -> None:
        shell.environ["AMANI_PASSWORD"] = PASSWORD if words else "short"
        done = shell.run("flask", "amani", "user-create", "a@b.org", "--name", "A", *words)
        assert done.returncode == 2
        assert ("king" if words else "10 characters") in done.stderr


class TestDeposit:
    def test_a_transfer_is_booked_once(self, shell: Shell, store: DatabaseStore, ada: str) -> None:
        words = ("flask", "amani", "deposit", "Ada@example.org", "1500.50", "--reference", "b-1")
        assert shell.ok(*words) == "NGN 1500.50"
        again = shell.run(*words)
        assert again.returncode == 1
        assert "is already in the ledger" in again.stderr
        assert posted(store, ada) == 150_050

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["nobody@example.org", "1"], "there is no user nobody@example.org"),
            (["ada@example.org", "1.001"], "no amount of NGN"),
            (["ada@example.org", "1", "--currency", "XXX"], "none of the currencies"),
            (["ada@example.org", "0"], "nothing moves"),
        ],
    )
    def test_what_cannot_be_booked_is_told(
        self, shell: Shell, store: DatabaseStore, ada: str, words: list[str], said: str
    ) -> None:
        done = shell.run("flask", "amani", "deposit", *words, "--reference", "b-1")
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert posted(store, ada) == 0


class TestSuspense:
    @pytest.fixture
    def waiting(self, shell: Shell, store: DatabaseStore, ada: str) -> list[str]:
        """Three bank transfers of 5, 6 and 7 naira that are nobody's."""
        numbers = VirtualAccountUseCases(Context(utc_now, new_id))
        settle, by, nothing = numbers.settle, Actor("webhook"), Money(0, "NGN")
        for minor in (500, 600, 700):
            found = Inflow(
                f"in-{minor}", PaymentOutcome.SUCCESSFUL, "99", Money(minor, "NGN"), nothing
            )
            store.run(lambda unit, found=found: settle(unit, by, found))  # type: ignore
        return shell.ok("flask", "amani", "suspense", "list").splitlines()

    def test_it_is_listed_given_and_sent_back(
        self, shell: Shell, store: DatabaseStore, ada: str, waiting: list[str]
    ) -> None:
        assert [line.split()[2:] for line in waiting] == [
            [line.split()[2], "NGN", f"{naira}.00", "inflow", f"in-{naira}00"]
            for line, naira in zip(waiting, (5, 6, 7), strict=True)
        ]
        first, second, third = (line.split()[2] for line in waiting)
        words = ("flask", "amani", "suspense")
        assert shell.ok(*words, "attribute", first, "Ada@example.org") == "NGN 5.00"
        assert shell.ok(*words, "send-back", second) == "NGN 6.00"
        assert posted(store, ada) == 500
        assert shell.ok(*words, "list") == waiting[2]
        assert shell.ok("flask", "amani", "reconcile") == ""
        log = store.read(lambda unit: unit.audited(None, 2))
        said = [(line.actor, line.action, line.subject, line.after) for line in reversed(log)]
        assert said == [
            ("operator", "suspense.attributed", first, f"wallet:{ada}:NGN"),
            ("operator", "suspense.attributed", second, "provider:NGN"),
        ]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["attribute", "X", "ada@example.org"], "suspense has no item of transfer X"),
            (["send-back", "X"], "suspense has no item of transfer X"),
            (["attribute", "{0}", "nobody@example.org"], "there is no user nobody"),
        ],
    )
    def test_what_cannot_be_booked_is_told(
        self, shell: Shell, waiting: list[str], words: list[str], said: str
    ) -> None:
        given = [word.format(waiting[0].split()[2]) for word in words]
        done = shell.run("flask", "amani", "suspense", *given)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert shell.ok("flask", "amani", "suspense", "list").splitlines() == waiting


@pytest.mark.usefixtures("ten")
class TestReconcile:
    @pytest.fixture(
        params=["sqlite_engine", pytest.param("postgres_engine", marks=pytest.mark.postgres)]
    )
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        engine: Engine = request.getfixturevalue(request.param)
        return engine

    def test_right_books_are_silent(self, shell: Shell, store: DatabaseStore, ada: str) -> None:
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
    def test_whatever_is_wrong_is_told(
        self, shell: Shell, engine: Engine, store: DatabaseStore, ada: str, damage: str, said: str
    ) -> None:
        under_way(store, ada)
        with engine.begin() as connection:
            connection.execute(text(damage))
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert said in done.stdout


def under_way(store: DatabaseStore, owner: str, state: State = State.REQUESTED) -> tuple[str, str]:
    """The ids of a deposit of 5 naira that is waited for, and of a withdrawal of 4."""
    now = utc_now()
    deposit = Deposit(new_id(), owner, Money(500, "NGN"), now, DepositState.PENDING, "link")
    withdrawal = Withdrawal(new_id(), owner, Money(400, "NGN"), BANK, now, state)
    wallet = Account(AccountKind.WALLET, "NGN", owner)

    def change(unit: t.Any) -> None:
        unit.deposits.add(deposit, now)
        id = withdrawal.id
        unit.ledger.reserve(PendingTransfer(id, "withdraw", id, wallet, withdrawal.amount))
        unit.withdrawals.add(withdrawal)
        unit.withdrawals.save(withdrawal, now)

    store.run(change)
    return deposit.id, withdrawal.id


@pytest.mark.usefixtures("ten")
class TestReconcileWithTheProvider:
    @pytest.fixture
    def sandbox(self, shell: Shell) -> t.Iterator[Sandbox]:
        sandbox = Sandbox()
        shell.environ.update(
            FINCRA_URL=sandbox.url,
            FINCRA_SECRET_KEY=API_KEY,
            FINCRA_PUBLIC_KEY="public",
            FINCRA_BUSINESS_ID="business",
            FINCRA_WEBHOOK_SECRET=WEBHOOK_SECRET,
        )
        yield sandbox
        sandbox.stop()

    def test_the_wallet_there_is_compared(self, shell: Shell, sandbox: Sandbox, ada: str) -> None:
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert done.stdout == "the payment provider holds NGN 0.00, the ledger NGN 10.00\n"
        sandbox.books.fund(Money(1_000, "NGN"))
        assert shell.ok("flask", "amani", "reconcile") == ""

    @pytest.mark.parametrize("end", ["", "successful", "failed"])
    def test_what_is_under_way_is_no_difference(
        self, shell: Shell, sandbox: Sandbox, store: DatabaseStore, ada: str, end: str
    ) -> None:
        sandbox.books.fund(Money(1_000, "NGN"))
        deposit, withdrawal = under_way(store, ada, State.PROCESSING)
        sandbox.books.pay(deposit, Money(501, "NGN"))
        sandbox.books.pay_out(withdrawal, Money(400, "NGN"), BANK)
        if end:
            sandbox.tell("finish", reference=withdrawal, status=end)
        assert shell.ok("flask", "amani", "reconcile") == ""
        sandbox.books.fund(Money(1_000, "NGN"))
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert "the payment provider holds" in done.stdout

    def test_a_pay_out_that_the_provider_does_not_have_is_told(
        self, shell: Shell, sandbox: Sandbox, store: DatabaseStore, ada: str
    ) -> None:
        sandbox.books.fund(Money(1_000, "NGN"))
        _, withdrawal = under_way(store, ada, State.PROCESSING)
        done = shell.run("flask", "amani", "reconcile")
        words = "the payment provider accepted it and does not know it now"
        assert done.stdout == f"withdrawal {withdrawal}: {words}\n"

    def test_a_provider_that_is_away_is_told(self, shell: Shell, sandbox: Sandbox) -> None:
        shell.environ["FINCRA_URL"] = f"http://127.0.0.1:{free_port()}"
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert "is unreachable" in done.stdout
