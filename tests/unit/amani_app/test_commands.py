"""The commands of an operator, as programs on SQLite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amani_app.adapters.database.store import DatabaseStore
from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.container import new_id, utc_now
from amani_app.domain.money import Money
from amani_app.domain.payments import WithdrawalState as State
from amani_app.domain.users import Role
from amani_app.ports.payments import Inflow, PaymentOutcome
from tests.support.contracts.commands import *  # noqa: F401,F403
from tests.support.contracts.commands import BANK, PASSWORD, posted, under_way
from tests.support.sandboxes import API_KEY, WEBHOOK_SECRET, Sandbox
from tests.support.service_fixtures import Shell, free_port


class TestUserCreate:
    @pytest.mark.parametrize("role", ["member", "arbiter", "admin"])
    def test_user_create_supports_every_role(
        self, shell: Shell, store: DatabaseStore, role: str
    ) -> None:
        words = ("user-create", "Ada@Example.org", "--name", "Ada", "--role", role)
        id = shell.ok("flask", "amani", *words)
        found = store.read(lambda unit: unit.users.get(id))
        assert (found.email, found.role) == ("ada@example.org", Role(role))
        assert found.password_hash.startswith("$argon2id$")
        (line,) = store.read(lambda unit: unit.audited(None, 10))
        assert (line.action, line.subject) == ("user.signed-up", id)

    def test_admin_create_creates_the_first_administrator(
        self, shell: Shell, store: DatabaseStore
    ) -> None:
        id = shell.ok("flask", "amani", "admin", "create", "Root@Example.org")
        found = store.read(lambda unit: unit.users.get(id))
        assert (found.email, found.role) == ("root@example.org", Role.ADMIN)

    def test_duplicate_email_is_rejected(self, shell: Shell, ada: str) -> None:
        done = shell.run("flask", "amani", "user-create", "ada@example.org", "--name", "Other")
        assert done.returncode == 1
        assert "ada@example.org has an account" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("words", [["--role", "king"], []])
    def test_wrong_usage_is_reported(self, shell: Shell, words: list[str]) -> None:
        shell.environ["AMANI_PASSWORD"] = PASSWORD if words else "short"
        done = shell.run("flask", "amani", "user-create", "a@b.org", "--name", "A", *words)
        assert done.returncode == 2
        assert ("king" if words else "10 characters") in done.stderr


class TestDeposit:
    def test_transfer_is_booked_once(self, shell: Shell, store: DatabaseStore, ada: str) -> None:
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
    def test_invalid_deposit_is_reported(
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
        """Three unattributed bank transfers of 5, 6 and 7 naira."""
        numbers = VirtualAccountUseCases(Context(utc_now, new_id))
        settle, by, nothing = numbers.settle, Actor("webhook"), Money(0, "NGN")
        for minor in (500, 600, 700):
            found = Inflow(
                f"in-{minor}", PaymentOutcome.SUCCESSFUL, "99", Money(minor, "NGN"), nothing
            )
            store.run(lambda unit, found=found: settle(unit, by, found))  # type: ignore
        return shell.ok("flask", "amani", "suspense", "list").splitlines()

    def test_suspense_is_listed_attributed_and_returned(
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
    def test_invalid_suspense_command_is_reported(
        self, shell: Shell, waiting: list[str], words: list[str], said: str
    ) -> None:
        given = [word.format(waiting[0].split()[2]) for word in words]
        done = shell.run("flask", "amani", "suspense", *given)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert shell.ok("flask", "amani", "suspense", "list").splitlines() == waiting


@pytest.mark.usefixtures("ten")
class TestReconcileWithTheProvider:
    @pytest.fixture
    def sandbox(self, shell: Shell) -> Iterator[Sandbox]:
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

    def test_provider_balance_is_compared(self, shell: Shell, sandbox: Sandbox, ada: str) -> None:
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert done.stdout == "the payment provider holds NGN 0.00, the ledger NGN 10.00\n"
        sandbox.books.fund(Money(1_000, "NGN"))
        assert shell.ok("flask", "amani", "reconcile") == ""

    @pytest.mark.parametrize("end", ["", "successful", "failed"])
    def test_pending_payments_are_no_difference(
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

    def test_missing_payout_is_reported(
        self, shell: Shell, sandbox: Sandbox, store: DatabaseStore, ada: str
    ) -> None:
        sandbox.books.fund(Money(1_000, "NGN"))
        _, withdrawal = under_way(store, ada, State.PROCESSING)
        done = shell.run("flask", "amani", "reconcile")
        words = "the payment provider accepted it and does not know it now"
        assert done.stdout == f"withdrawal {withdrawal}: {words}\n"

    def test_unreachable_provider_is_reported(self, shell: Shell, sandbox: Sandbox) -> None:
        shell.environ["FINCRA_URL"] = f"http://127.0.0.1:{free_port()}"
        done = shell.run("flask", "amani", "reconcile")
        assert done.returncode == 1
        assert "is unreachable" in done.stdout
