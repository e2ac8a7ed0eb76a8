"""A state machine over money: no sequence of actions creates, loses or strands any."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.escrows import EscrowProposal, EscrowUseCases
from amani_app.application.requests.suspense import SuspenseUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.domain.errors import DomainError
from amani_app.domain.escrow import Escrow, FeePolicy
from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination, Withdrawal
from amani_app.domain.users import Role, User
from amani_app.ports.payments import Inflow, IssuedAccount, PaymentOutcome
from amani_app.ports.store import Store, UnitOfWork

IDS = itertools.count(1)
BANK = Destination("044", "0123456789", "Ada Obi")
PEOPLE = 3
people = st.integers(0, PEOPLE - 1)
small = st.integers(0, 20_000)
pick = st.integers(0, 10**6)


def new_id() -> str:
    return f"{next(IDS):012d}"


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


class Machine(RuleBasedStateMachine):
    """Users, an arbiter and a provider that act in any order, repeatedly."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self.store = store
        self.clock = clock
        context = Context(clock, new_id)
        self.deposits = DepositUseCases(context)
        self.numbers = VirtualAccountUseCases(context)
        self.withdrawals = WithdrawalUseCases(context)
        self.suspense = SuspenseUseCases(context)
        self.escrows = EscrowUseCases(context, FeePolicy(500))
        self.users = [self._person(Role.MEMBER) for _ in range(PEOPLE)]
        self.arbiter = Actor(self._person(Role.ARBITER).id, Role.ARBITER)
        self.names: list[str] = []
        self.asked: list[str] = []
        self.references: list[str] = []
        self.issued: list[str] = []
        self.inflows: list[str] = []
        # All examples on one database share the house accounts.
        self.before = self._house()
        self.arrived = self.left = 0

    def _person(self, role: Role) -> User:
        id = new_id()
        user = User(id, f"{id}@example.org", "N", role, "hash", self.clock())
        self.store.run(lambda unit: unit.users.add(user))
        return user

    def _try(self, change: Callable[[UnitOfWork], Any]) -> Any:
        """The result of `work`, or `None` if a rule of the domain rejected it."""
        try:
            return self.store.run(change)
        except DomainError:
            return None

    def _actor(self, index: int) -> Actor:
        return Actor(self.users[index].id)

    def _escrow(self, pick: int) -> tuple[str, str]:
        id = self.names[pick % len(self.names)]
        escrow = self.store.run(lambda unit: unit.escrows.get(id))
        return id, escrow.milestones[pick % len(escrow.milestones)].id

    @rule(
        who=people, asked=st.integers(1, 20_000), over=st.integers(-500, 500), again=st.booleans()
    )
    def deposit(self, who: int, asked: int, over: int, again: bool) -> None:
        if again and self.references:
            reference = self.references[-1]
        else:
            reference = new_id()
        got = max(1, asked + over)
        owner = self.users[who].id
        credited = self._try(
            lambda unit: self.deposits.collected(
                unit, Actor("webhook"), owner, reference, ngn(asked), ngn(got)
            )
        )
        assert (credited is None) is (reference in self.references)
        if credited is not None:
            self.references.append(reference)
            self.arrived += got

    @rule(who=people, state=st.sampled_from([AccountState.ACTIVE, *AccountState]))
    def virtual_account(self, who: int, state: AccountState) -> None:
        """A user requests an account, or the provider changes the status of one."""
        made = self._try(lambda unit: self.numbers.request(unit, self._actor(who), "NGN"))
        if made:
            self.issued.append(made.id)
        if self.issued:
            id, number = self.issued[-1], f"n-{self.issued[-1]}"
            told = IssuedAccount(id, f"p-{id}", state, account_number=number)
            learn = self.numbers.learn
            self.store.run(lambda unit: learn(unit, Actor("webhook"), id, told))

    @rule(pick=pick, minor=st.integers(1, 20_000), fee=st.integers(0, 200), again=st.booleans())
    def transfer(self, pick: int, minor: int, fee: int, again: bool) -> None:
        """A transfer to a number is credited once, to the owner only while it is active."""
        reference = self.inflows[-1] if again and self.inflows else new_id()
        number = f"n-{self.issued[pick % len(self.issued)]}" if self.issued else "nobody's"
        amount, kept = ngn(minor), ngn(min(fee, minor))
        found = Inflow(reference, PaymentOutcome.SUCCESSFUL, number, amount, kept)

        def change(unit: UnitOfWork) -> bool:
            self.numbers.settle(unit, Actor("webhook"), found)
            return True

        new = self._try(change)
        assert (new is None) is (reference in self.inflows)
        if new:
            self.inflows.append(reference)
            self.arrived += minor - kept.minor

    @rule(who=people, minor=small)
    def withdraw(self, who: int, minor: int) -> None:
        ask = self.withdrawals.request
        made = self._try(lambda unit: ask(unit, self._actor(who), ngn(minor), BANK))
        if made:
            self.asked.append(made.id)

    @rule(pick=pick, paid=st.booleans(), fee=st.sampled_from([0, 0, 5_375]))
    def settle(self, pick: int, paid: bool, fee: int) -> None:
        if not self.asked:
            return
        id = self.asked[pick % len(self.asked)]

        def change(unit: UnitOfWork) -> int:
            self.withdrawals.settle(unit, Actor("webhook"), id, paid, fee=ngn(fee))
            return unit.ledger.pending(id).amount.minor

        amount = self._try(change)
        if paid and amount:
            self.left += amount + fee

    @rule(pick=pick, fee=st.sampled_from([0, 0, 5_375]))
    def correct(self, pick: int, fee: int) -> None:
        """The provider reverses the final status of a payout, if there is one."""
        if not self.asked:
            return
        id = self.asked[pick % len(self.asked)]

        def change(unit: UnitOfWork) -> Withdrawal:
            self.withdrawals.correct(unit, Actor("webhook"), id, fee=ngn(fee))
            return unit.withdrawals.get(id)

        if found := self._try(change):
            moved = found.amount.minor + fee
            self.left += moved if found.state.paid else -moved

    @rule(pick=pick, who=st.none() | people)
    def clear_suspense(self, pick: int, who: int | None) -> None:
        """An operator attributes a transfer to a user, or books its return to the sender."""
        waiting = self.store.read(self.suspense.waiting)
        if not waiting:
            return
        found, by = waiting[pick % len(waiting)], Actor("operator")
        if who is not None:
            owner, give = self.users[who].id, self.suspense.attribute
            self._try(lambda unit: give(unit, by, found.transfer, owner))
        else:
            send_back = self.suspense.send_back
            assert self._try(lambda unit: send_back(unit, by, found.transfer)) == found.amount
            self.left += found.amount.minor

    @rule(who=people, other=people, amounts=st.lists(st.integers(1, 5_000), min_size=1, max_size=3))
    def create(self, who: int, other: int, amounts: list[int]) -> None:
        plan = EscrowProposal(
            "Work",
            self.users[other].email,
            "NGN",
            7,
            tuple(("Part", ngn(amount), None) for amount in amounts),
        )
        made: Escrow | None = self._try(
            lambda unit: self.escrows.create(unit, self._actor(who), plan)
        )
        assert (made is None) is (who == other)
        if made:
            self.names.append(made.id)

    @rule(pick=pick, who=people)
    def agree_and_fund(self, pick: int, who: int) -> None:
        if not self.names:
            return
        id, _ = self._escrow(pick)
        for step in (self.escrows.accept, self.escrows.fund):
            for index in range(PEOPLE):
                actor = self._actor(index)
                self._try(lambda w, s=step, a=actor: s(w, a, id))  # type: ignore

    @rule(
        pick=pick,
        who=people,
        step=st.sampled_from(["accept", "fund", "cancel"]),
    )
    def agreement(self, pick: int, who: int, step: str) -> None:
        if not self.names:
            return
        id, _ = self._escrow(pick)
        act = getattr(self.escrows, step)
        self._try(lambda unit: act(unit, self._actor(who), id))

    @rule(
        pick=pick,
        who=people,
        step=st.sampled_from(["submit", "submit", "approve", "approve", "reject", "dispute"]),
    )
    def work_on_it(self, pick: int, who: int, step: str) -> None:
        if not self.names:
            return
        id, milestone = self._escrow(pick)
        act = getattr(self.escrows, step)
        self._try(lambda unit: act(unit, self._actor(who), id, milestone))

    @rule(pick=pick, to_client=st.sampled_from([0, 1, 3_333, 5_000, 10_000]))
    def resolve(self, pick: int, to_client: int) -> None:
        if not self.names:
            return
        id, milestone = self._escrow(pick)
        self._try(lambda w: self.escrows.resolve(w, self.arbiter, id, milestone, to_client))

    @rule(days=st.integers(0, 8))
    def time_passes(self, days: int) -> None:
        self.clock.time += timedelta(days=days)
        due = self.store.run(lambda unit: unit.escrows.silent_since(self.clock(), 100))
        act = self.escrows.expire
        for id, milestone in due:
            assert self._try(lambda w, i=id, m=milestone: act(w, i, m))  # type: ignore
        assert self.store.run(lambda unit: unit.escrows.silent_since(self.clock(), 100)) == []

    @invariant()
    def nothing_is_made_or_lost(self) -> None:
        wallets, holds = self._people_s_money()
        house = {kind: total - self.before[kind] for kind, total in self._house().items()}
        assert house[AccountKind.PROVIDER] == self.left - self.arrived
        others = house[AccountKind.FEES] + house[AccountKind.SUSPENSE]
        assert wallets + holds + others == self.arrived - self.left

    def teardown(self) -> None:
        """No money is stranded: every hold can be released, and then all holds are empty."""
        for id in self.names:
            escrow = self.store.run(lambda unit, id=id: unit.escrows.get(id))  # type: ignore
            for milestone in escrow.milestones:
                if milestone.state.holds:
                    self._end(escrow, milestone.id)
        assert self._people_s_money()[1] == 0
        send_back, by = self.suspense.send_back, Actor("operator")
        for each in self.store.read(self.suspense.waiting):
            self.store.run(lambda unit, id=each.transfer: send_back(unit, by, id))  # type: ignore
        assert self._house()[AccountKind.SUSPENSE] == 0
        assert self.store.run(lambda unit: unit.ledger.differences()) == []

    def _end(self, escrow: Escrow, milestone: str) -> None:
        client = Actor(escrow.client)
        self._try(lambda unit: self.escrows.dispute(unit, client, escrow.id, milestone))
        assert self._try(
            lambda unit: self.escrows.resolve(unit, self.arbiter, escrow.id, milestone, 5_000)
        )

    def _people_s_money(self) -> tuple[int, int]:
        def change(unit: UnitOfWork) -> tuple[int, int]:
            wallets = holds = 0
            for user in self.users:
                for account, balance in unit.ledger.wallets(user.id):
                    assert 0 <= balance.reserved.minor <= balance.posted.minor
                    assert balance.posted == unit.ledger.total(account)
                    wallets += balance.posted.minor
            for id in self.names:
                for milestone in unit.escrows.get(id).milestones:
                    hold = Account(AccountKind.HOLD, "NGN", milestone.id)
                    held = unit.ledger.balance(hold).posted
                    assert held == (milestone.amount if milestone.state.holds else ngn(0))
                    holds += held.minor
            return wallets, holds

        return self.store.run(change)

    def _house(self) -> dict[AccountKind, int]:
        kinds = [kind for kind in AccountKind if not kind.guarded]
        return self.store.run(
            lambda unit: {k: unit.ledger.total(Account(k, "NGN")).minor for k in kinds}
        )
