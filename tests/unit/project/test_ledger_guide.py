"""The worked examples of docs/ledger.md, run through the use cases."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from amani_app.adapters.database.store import DatabaseStore
from amani_app.adapters.memory.store import MemoryStore
from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.escrows import EscrowProposal, EscrowUseCases
from amani_app.application.requests.suspense import SuspenseUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.domain.escrow import FeePolicy
from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination
from amani_app.domain.users import Role, User
from amani_app.ports.payments import Inflow, IssuedAccount, PaymentOutcome
from amani_app.ports.store import Store, UnitOfWork
from tests.support.service_fixtures import ROOT

GUIDE = (ROOT / "docs" / "ledger.md").read_text()
EXAMPLES = re.findall(r"```steps\n(.*?)```\n```books\n(.*?)```", GUIDE, re.S)
NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
PEOPLE = {"ada": Role.MEMBER, "ben": Role.MEMBER, "cleo": Role.ARBITER}
HOUSE = (AccountKind.FEES, AccountKind.PROVIDER, AccountKind.SUSPENSE)


def naira(text: str) -> Money:
    return Money.parse(text, "NGN")


class Books:
    """Runs the steps of an example, and formats the books as the guide does."""

    def __init__(self, store: Store) -> None:
        numbers = itertools.count(1)
        context = Context(lambda: NOW, lambda: f"id-{next(numbers):05}")
        self.store = store
        self.deposits = DepositUseCases(context)
        self.escrows = EscrowUseCases(context, FeePolicy(500))
        self.accounts = VirtualAccountUseCases(context)
        self.withdrawals = WithdrawalUseCases(context)
        self.suspense = SuspenseUseCases(context)
        self.references = map(str, itertools.count(1))
        self.agreed: dict[str, tuple[str, list[str]]] = {}
        self.asked: dict[str, str] = {}
        for name, role in PEOPLE.items():
            user = User(name, f"{name}@example.org", name, role, "hash", NOW)
            store.run(lambda unit, user=user: unit.users.add(user))  # type: ignore[misc]

    def do(self, step: str) -> None:
        verb, *words = step.split()
        self.store.run(lambda unit: getattr(self, verb.replace("-", "_"))(unit, *words))

    def deposit(self, unit: UnitOfWork, who: str, asked: str, *received: str) -> None:
        got = naira(received[1] if received else asked)
        reference = next(self.references)
        self.deposits.collected(unit, Actor(who), who, reference, naira(asked), got)

    def transfer(self, unit: UnitOfWork, who: str, amount: str, _fee: str, fee: str) -> None:
        if who != "nobody" and not unit.virtual_accounts.of(who, None, 1):
            made = self.accounts.request(unit, Actor(who), "NGN")
            issued = IssuedAccount(made.id, "a1", AccountState.ACTIVE, account_number=who)
            self.accounts.learn(unit, Actor(who), made.id, issued)
        reference, outcome = next(self.references), PaymentOutcome.SUCCESSFUL
        found = Inflow(reference, outcome, who, naira(amount), naira(fee))
        self.accounts.settle(unit, Actor("test"), found)

    def agree(
        self, unit: UnitOfWork, name: str, client: str, freelancer: str, *amounts: str
    ) -> None:
        parts = tuple((f"Part {amount}", naira(amount), None) for amount in amounts)
        plan = EscrowProposal(name, f"{freelancer}@example.org", "NGN", 7, parts)
        made = self.escrows.create(unit, Actor(client), plan)
        self.escrows.accept(unit, Actor(freelancer), made.id)
        self.agreed[name] = made.id, [milestone.id for milestone in made.milestones]

    def fund(self, unit: UnitOfWork, name: str) -> None:
        self.escrows.fund(unit, Actor("ada"), self.agreed[name][0])

    def approve(self, unit: UnitOfWork, name: str, number: str) -> None:
        id, milestones = self.agreed[name]
        self.escrows.submit(unit, Actor("ben"), id, milestones[int(number) - 1])
        self.escrows.approve(unit, Actor("ada"), id, milestones[int(number) - 1])

    def resolve(
        self, unit: UnitOfWork, name: str, number: str, _to: str, part: str, _: str
    ) -> None:
        id, milestones = self.agreed[name]
        milestone, points = milestones[int(number) - 1], int(part) * 100
        self.escrows.dispute(unit, Actor("ada"), id, milestone)
        self.escrows.resolve(unit, Actor("cleo", Role.ARBITER), id, milestone, points)

    def cancel(self, unit: UnitOfWork, name: str) -> None:
        for who in ("ada", "ben"):
            self.escrows.cancel(unit, Actor(who), self.agreed[name][0])

    def withdraw(self, unit: UnitOfWork, name: str, who: str, amount: str) -> None:
        to = Destination("044", "0123456789", who)
        made = self.withdrawals.request(unit, Actor(who), naira(amount), to)
        self.asked[name] = made.id

    def paid(self, unit: UnitOfWork, name: str, *fee: str) -> None:
        cost = naira(fee[1]) if fee else None
        self.withdrawals.settle(unit, Actor("test"), self.asked[name], True, fee=cost)

    def failed(self, unit: UnitOfWork, name: str) -> None:
        self.withdrawals.settle(unit, Actor("test"), self.asked[name], False)

    def attribute(self, unit: UnitOfWork, number: str, who: str) -> None:
        waits = self.suspense.waiting(unit)[int(number) - 1]
        self.suspense.attribute(unit, Actor("test"), waits.transfer, who)

    def send_back(self, unit: UnitOfWork, number: str) -> None:
        waits = self.suspense.waiting(unit)[int(number) - 1]
        self.suspense.send_back(unit, Actor("test"), waits.transfer)

    def turned(self, unit: UnitOfWork, name: str, _fee: str, fee: str) -> None:
        self.withdrawals.correct(unit, Actor("test"), self.asked[name], fee=naira(fee))

    def show(self) -> list[list[str]]:
        """The accounts with a balance, sorted by name."""
        named = {kind.value: Account(kind, "NGN") for kind in HOUSE}
        named |= {f"wallet:{who}": Account(AccountKind.WALLET, "NGN", who) for who in PEOPLE}
        for name, (_, milestones) in self.agreed.items():
            for number, id in enumerate(milestones, 1):
                named[f"hold:{name}.{number}"] = Account(AccountKind.HOLD, "NGN", id)

        def change(unit: UnitOfWork) -> list[list[str]]:
            lines, whole = [], 0
            for name, account in sorted(named.items()):
                total = unit.ledger.total(account)
                whole += total.minor
                line = [name, total.major]
                if account.kind.guarded and (reserved := unit.ledger.balance(account).reserved):
                    line += ["reserved", reserved.major]
                lines += [line] if total else []
            assert whole == 0
            assert unit.ledger.differences() == []
            return lines

        return self.store.read(change)


@pytest.fixture(params=["memory", "sqlite_engine"])
def books(request: pytest.FixtureRequest) -> Books:
    if request.param == "memory":
        return Books(MemoryStore(lambda: NOW))
    return Books(DatabaseStore(request.getfixturevalue(request.param), lambda: NOW))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0].splitlines()[-1])
def test_books_match_the_guide(books: Books, example: tuple[str, str]) -> None:
    steps, expected = example
    for step in steps.splitlines():
        books.do(step)
    assert books.show() == [line.split() for line in expected.splitlines()]


def test_every_example_is_tested() -> None:
    assert len(EXAMPLES) == GUIDE.count("```steps") == GUIDE.count("```books") >= 7


def test_guide_names_every_state_and_account() -> None:
    from amani_app.domain.payments import DepositState, WithdrawalState

    states: list[Any] = [*DepositState, *AccountState, *WithdrawalState]
    missing = [state.value for state in states if f"`{state.value}`" not in GUIDE]
    missing += [kind.value for kind in AccountKind if f"| `{kind.value}` |" not in GUIDE]
    assert missing == []
