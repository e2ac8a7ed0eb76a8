"""Payments through a provider that fails, answers late and notifies in any order.

No money is created, lost or left reserved.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amani_app.adapters.fincra.notices import sign
from amani_app.adapters.fincra.sandbox.payments import MemoryPayments
from amani_app.adapters.memory.store import MemoryStore
from amani_app.application.common.acting import Actor, Context, NotFound
from amani_app.application.common.queues import LEASE
from amani_app.application.provider.payouts import QUIET
from amani_app.application.provider.reconciliation import Reconcile
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.virtual_accounts import (
    LOOK_EVERY,
    AccountExists,
    VirtualAccountUseCases,
)
from amani_app.application.requests.withdrawals import REQUESTED, REVIEWS, WithdrawalUseCases
from amani_app.application.worker.outbox import SKIP_AT_ONCE, DeliverEvents
from amani_app.container import build_provider
from amani_app.domain.errors import InsufficientFunds, MoneyError
from amani_app.domain.ledger import Account, AccountKind, receive
from amani_app.domain.money import Money
from amani_app.domain.payments import (
    AccountState,
    Destination,
    VirtualAccount,
    WithdrawalState,
)
from amani_app.domain.users import Role, User
from amani_app.ports.payments import (
    AccountHolder,
    AnswerUnknown,
    Collection,
    Inflow,
    IssuedAccount,
    PaymentOutcome,
    PaymentRefused,
    Payout,
    ProviderUnavailable,
)
from amani_app.ports.store import OutboxEvent
from tests.support.state_machine import run_machine

ADA = Actor("ada")
BANK = Destination("044", "0123456789", "Ada Obi")
HOLDER = AccountHolder("Ada", "Obi", "ada@example.org", "22212345678")
FEES = Account(AccountKind.FEES, "NGN")
MOODS = ("good", "good", "good", "away", "lost", "late", "refuse")
Clock = Callable[[], datetime]
short = st.sampled_from([1, 5, 70])
pick = st.integers(0, 10**6)


def ngn(minor: int) -> Money:
    return Money(minor, "NGN")


class MoodyPayments(MemoryPayments):
    """A provider that is unreachable, loses its answers, makes payouts later, or refuses."""

    mood = "good"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.late: list[tuple[datetime, str, Money]] = []

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        self._answer(("away",), ProviderUnavailable)
        link = super().checkout(reference, amount, email, name)
        self._answer(("lost", "late"), AnswerUnknown)
        return link

    def collection(self, reference: str) -> Collection | None:
        self._answer(("away", "lost", "late"), ProviderUnavailable)
        return super().collection(reference)

    def payout(self, reference: str) -> Payout | None:
        self._answer(("away",), ProviderUnavailable)
        return super().payout(reference)

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        self._answer(("away",), ProviderUnavailable)
        self._answer(("refuse",), PaymentRefused)
        if self.mood == "late":
            self.late.append((self.clock(), reference, amount))
            raise AnswerUnknown
        made = super().pay_out(reference, amount, to)
        self._answer(("lost",), AnswerUnknown)
        return made

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        self._answer(("away",), ProviderUnavailable)
        self._answer(("refuse",), PaymentRefused)
        made = super().request_account(reference, currency, holder)
        self._answer(("lost", "late"), AnswerUnknown)
        return made

    def account(self, reference: str) -> IssuedAccount | None:
        self._answer(("away", "lost", "late"), ProviderUnavailable)
        return super().account(reference)

    def account_named(self, id: str) -> IssuedAccount | None:
        self._answer(("away", "lost"), ProviderUnavailable)
        return super().account_named(id)

    def inflow(self, reference: str) -> Inflow | None:
        self._answer(("away", "lost", "late"), ProviderUnavailable)
        return super().inflow(reference)

    def inflows(self, id: str) -> list[Inflow]:
        self._answer(("away", "late"), ProviderUnavailable)
        return super().inflows(id)

    def arrive(self, sent_by: datetime) -> None:
        """Make the late payouts that were sent by `sent_by`, unless they are refused."""
        late, self.late = self.late, []
        for sent, reference, amount in late:
            if sent > sent_by:
                self.late.append((sent, reference, amount))
                continue
            with suppress(PaymentRefused):
                super().pay_out(reference, amount, BANK)

    def _answer(self, moods: tuple[str, ...], error: type[Exception]) -> None:
        if self.mood in moods:
            raise error("in no mood for it")


class World:
    """Ada, her wallet, the provider, and the worker's jobs; all in memory."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 9, tzinfo=UTC)
        numbers = itertools.count(1)
        context = Context(lambda: self.time, lambda: f"{next(numbers):09}")
        self.store = MemoryStore(context.now)
        self.payments = MoodyPayments(context.now)
        self.deposits = DepositUseCases(context)
        self.numbers = VirtualAccountUseCases(context)
        self.withdrawals = WithdrawalUseCases(context)
        self.provider = build_provider(
            "fincra",
            context,
            self.store,
            self.payments,
            self.deposits,
            self.numbers,
            self.withdrawals,
        )
        self.deliver = DeliverEvents(context, self.store, {REQUESTED: self.provider.payouts.send})
        self.transfers = itertools.count(1)
        self.asked: list[str] = []
        self.wanted: list[str] = []
        user = User("ada", "ada@example.org", "Ada", Role.MEMBER, "hash", self.time)
        self.store.run(lambda unit: unit.users.add(user))

    def wait(self, time: timedelta) -> None:
        """Let time pass. A late payout is made at most `QUIET` after it was sent."""
        self.time += time
        self.payments.arrive(self.time - QUIET)

    def work(self) -> None:
        for job in (
            self.deliver,
            self.provider.notices,
            self.provider.payouts,
            self.provider.checkouts,
            self.provider.inflows,
        ):
            job()

    def deposit(self, minor: int) -> str:
        id = self.store.run(lambda unit: self.deposits.request(unit, ADA, ngn(minor))).id
        self.wanted.append(id)
        try:
            self.provider.checkouts.open(id)
        except ProviderUnavailable:
            pass
        return id

    def withdraw(self, minor: int) -> str:
        ask = self.withdrawals.request
        id = self.store.run(lambda unit: ask(unit, ADA, ngn(minor), BANK)).id
        self.asked.append(id)
        return id

    def ask_for_an_account(self) -> VirtualAccount | None:
        try:
            made = self.store.run(lambda unit: self.numbers.request(unit, ADA, "NGN"))
        except AccountExists:
            return None
        try:
            return self.provider.inflows.issue(made.id, HOLDER)
        except ProviderUnavailable:
            return made

    def send(self, number: str, minor: int, fee: int = 0) -> Inflow:
        reference = f"in-{next(self.transfers)}"
        return self.payments.transfer(number, ngn(minor), ngn(fee), reference)

    def notify_of_a_transfer(self, reference: str) -> None:
        data = {"virtualAccount": "a", "reference": reference}
        raw = json.dumps({"event": "collection.successful", "data": data}).encode()
        self.provider.notices.receive(raw, {"signature": sign(self.payments.secret, raw)})

    def notify(self, event: str, field: str, reference: str) -> None:
        raw = json.dumps({"event": event, "data": {field: reference}}).encode()
        self.provider.notices.receive(raw, {"signature": sign(self.payments.secret, raw)})

    def funded(self, minor: int) -> None:
        self.payments.pay(self.deposit(minor), ngn(minor))
        self.time += timedelta(minutes=3)
        self.work()
        assert self.wallet() == (minor, 0)

    def wallet(self) -> tuple[int, int]:
        account = Account(AccountKind.WALLET, "NGN", "ada")
        found = self.store.read(lambda unit: unit.ledger.balance(account))
        return found.posted.minor, found.reserved.minor

    def total(self, kind: AccountKind) -> int:
        return self.store.read(lambda unit: unit.ledger.total(Account(kind, "NGN"))).minor

    def account(self, id: str) -> VirtualAccount:
        return self.store.read(lambda unit: unit.virtual_accounts.get(id))

    def state(self, id: str) -> WithdrawalState:
        return self.store.read(lambda unit: unit.withdrawals.get(id)).state

    def reconcile(self) -> list[str]:
        return Reconcile(self.store, self.payments)()


class Machine(RuleBasedStateMachine):
    """Requests, answers, notices and failures in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.funded(50_000)
        self.turned: set[str] = set()

    @rule(minor=st.integers(1, 5_000))
    def deposit(self, minor: int) -> None:
        self.world.deposit(minor)

    @rule(pick=pick, over=st.sampled_from([0, 0, 0, -1, 1]), fee=st.sampled_from([0, 0, 1]))
    def pay(self, pick: int, over: int, fee: int) -> None:
        if waiting := self._unpaid():
            id = waiting[pick % len(waiting)]
            asked = self.world.payments.asked(id).minor
            self.world.payments.pay(id, ngn(max(1, asked + over)), fee)

    @rule(pick=pick)
    def expire(self, pick: int) -> None:
        if waiting := self._unpaid():
            self.world.payments.expire(waiting[pick % len(waiting)])

    @rule(minor=st.integers(1, 5_000))
    def withdraw(self, minor: int) -> None:
        try:
            self.world.withdraw(minor)
        except InsufficientFunds:
            pass

    @rule(fee=st.sampled_from([0, 0, 5, 250]))
    def change_of_prices(self, fee: int) -> None:
        self.world.payments.fee = fee

    @rule(pick=pick, good=st.booleans())
    def finish(self, pick: int, good: bool) -> None:
        waiting = [x for x in self.world.payments.payouts.values() if x.outcome.value == "waiting"]
        if waiting:
            outcome = PaymentOutcome.SUCCESSFUL if good else PaymentOutcome.FAILED
            self.world.payments.finish(waiting[pick % len(waiting)].reference, outcome)

    @rule(pick=pick, told=st.booleans())
    def the_bank_changes_an_outcome(self, pick: int, told: bool) -> None:
        """Each payout changes its outcome at most once."""
        ended = [x for x in self.world.payments.payouts.values() if x.outcome.value != "waiting"]
        if open_ := [each for each in ended if each.reference not in self.turned]:
            found = open_[pick % len(open_)]
            good = found.outcome is PaymentOutcome.FAILED
            self.turned.add(found.reference)
            self.world.payments.finish(
                found.reference, PaymentOutcome.SUCCESSFUL if good else PaymentOutcome.FAILED
            )
            if told:
                event = "payout.successful" if good else "payout.failed"
                self.world.notify(event, "customerReference", found.reference)

    @rule(pick=pick, event=st.sampled_from(["charge.successful", "collection.successful"]))
    def notify_of_a_collection(self, pick: int, event: str) -> None:
        if self.world.wanted:
            wanted = self.world.wanted
            self.world.notify(event, "reference", wanted[pick % len(wanted)])

    @rule(pick=pick, event=st.sampled_from(["payout.successful", "payout.failed"]))
    def notify_of_a_payout(self, pick: int, event: str) -> None:
        if self.world.asked:
            asked = self.world.asked
            self.world.notify(event, "customerReference", asked[pick % len(asked)])

    @rule(decided=st.sampled_from(["pending", "active", "active", "declined"]))
    def ask_for_an_account(self, decided: str) -> None:
        self.world.payments.accounts = AccountState(decided)
        self.world.ask_for_an_account()

    @rule(pick=pick, state=st.sampled_from([AccountState.ACTIVE, AccountState.CLOSED]))
    def decide_on_an_account(self, pick: int, state: AccountState) -> None:
        if issued := list(self.world.payments.issued_accounts):
            id = issued[pick % len(issued)]
            self.world.payments.decide(id, state)
            self.world.notify("account.changed", "id", id)

    @rule(pick=pick, minor=st.integers(1, 5_000), fee=st.sampled_from([0, 0, 1]), told=pick)
    def transfer(self, pick: int, minor: int, fee: int, told: int) -> None:
        accounts = [
            each for each in self.world.payments.issued_accounts.values() if each.account_number
        ]
        active = [x.account_number for x in accounts if x.state is AccountState.ACTIVE]
        numbers = [*(each.account_number for each in accounts), "1111111111"]
        made = self.world.send(numbers[pick % len(numbers)], minor, fee)
        # The worker queries the transfers to active accounts only: others need a notice.
        for _ in range(told % 3 or made.account_number not in active):
            self.world.notify_of_a_transfer(made.reference)

    @rule(mood=st.sampled_from(MOODS))
    def change_of_mood(self, mood: str) -> None:
        self.world.payments.mood = mood

    @rule(moods=st.lists(st.sampled_from(MOODS), min_size=1, max_size=4), seconds=short)
    def a_withdrawal_in_changing_moods(self, moods: list[str], seconds: int) -> None:
        self.withdraw(100)
        for mood in moods:
            self.world.payments.mood = mood
            self.world.work()
            self.world.wait(timedelta(seconds=seconds))

    @rule()
    def work(self) -> None:
        self.world.work()

    @rule(seconds=st.sampled_from([1, 10, 60, 200, 600, 900]))
    def time_passes(self, seconds: int) -> None:
        self.world.wait(timedelta(seconds=seconds))

    @rule()
    def late_payouts_arrive(self) -> None:
        self.world.payments.arrive(self.world.time)

    @invariant()
    def the_books_are_right(self) -> None:
        differences = self.world.store.read(lambda unit: unit.ledger.differences())
        assert differences == []
        posted, reserved = self.world.wallet()
        assert 0 <= reserved <= posted

    def teardown(self) -> None:
        """Once the provider answers and time passes, all requests end and the ledger agrees."""
        world, payments = self.world, self.world.payments
        payments.mood = "good"
        for _ in range(12):
            world.wait(LOOK_EVERY)
            world.work()
            for found in list(payments.payouts.values()):
                if found.outcome is PaymentOutcome.WAITING:
                    payments.finish(found.reference, PaymentOutcome.SUCCESSFUL)
        for _ in range(max(REVIEWS)):
            world.wait(timedelta(days=1))
            world.work()
        for id in world.asked:
            there = payments.payout(id)
            paid = there is not None and there.outcome is PaymentOutcome.SUCCESSFUL
            state = world.state(id)
            assert state.final
            assert state.paid is paid
        assert world.wallet()[1] == 0
        mirror = world.store.read(lambda w: w.ledger.total(Account(AccountKind.PROVIDER, "NGN")))
        assert payments.balance("NGN") == -mirror
        assert world.reconcile() == []

    def _unpaid(self) -> list[str]:
        found = self.world.payments.collections
        return [id for id, each in found.items() if each.outcome is PaymentOutcome.WAITING]


@pytest.mark.timeout(1800)
@pytest.mark.explore
def test_no_order_of_events_makes_or_loses_money() -> None:
    run_machine(Machine, examples=60, steps=50)


class TestEdges:
    @pytest.fixture
    def world(self) -> World:
        return World()

    def test_amount_of_zero_or_less_is_refused(self, world: World) -> None:
        for minor in (0, -1):
            with pytest.raises(MoneyError):
                world.deposit(minor)
            with pytest.raises(MoneyError):
                world.withdraw(minor)

    @pytest.mark.parametrize("id", ["nothing", "another's"])
    def test_missing_or_another_users_request_is_not_found(self, world: World, id: str) -> None:
        ids = {"nothing": ("x", "x")}
        if id == "another's":
            world.funded(100)
            ids[id] = (world.wanted[0], world.withdraw(50))
        deposit, withdrawal = ids[id]
        ben = Actor("ben")
        with pytest.raises(NotFound):
            world.store.read(lambda unit: world.deposits.read(unit, ben, deposit))
        with pytest.raises(NotFound):
            world.store.read(lambda unit: world.withdrawals.read(unit, ben, withdrawal))

    @pytest.mark.parametrize("fee", [0, 7, 30])
    def test_transfer_to_an_account_is_credited_in_full_and_its_fee_debits_fees(
        self, world: World, fee: int
    ) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        sent = world.send(made.account_number, 30, fee)
        for _ in range(2):
            world.notify_of_a_transfer(sent.reference)
            world.work()
        assert world.wallet() == (30, 0)
        assert world.total(AccountKind.FEES) == -fee
        assert world.total(AccountKind.PROVIDER) == fee - 30
        assert world.reconcile() == []

    def test_transfer_without_a_notice_is_found_within_the_hour_and_reconciles_before(
        self, world: World
    ) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        for _ in range(2):
            world.send(made.account_number, 30, 1)
        assert world.reconcile() == []
        world.time += LOOK_EVERY
        world.work()
        assert (world.wallet(), world.reconcile()) == ((60, 0), [])

    def test_a_transfer_that_waits_or_failed_credits_nothing(self, world: World) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        sent = world.send(made.account_number, 30)
        world.payments.balances["NGN"] = 0
        for outcome, last in ((PaymentOutcome.WAITING, False), (PaymentOutcome.FAILED, True)):
            world.payments.transfers[sent.reference] = replace(sent, outcome=outcome)
            assert world.provider.inflows.check(sent.reference) is last
        assert world.wallet() == (0, 0)
        assert world.reconcile() == []

    def test_transfer_to_a_closed_account_stays_in_suspense(self, world: World) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        world.send(made.account_number, 10)
        world.payments.decide(made.provider_id, AccountState.CLOSED)
        assert world.provider.inflows.check_account(made.provider_id)
        assert world.wallet() == (10, 0)  # It arrived while the account was active.
        late = world.send(made.account_number, 5)
        lost = f"virtual account {made.id} is closed; not booked: NGN 0.05"
        assert world.reconcile() == [f"{lost} of {late.reference}"]
        assert world.provider.inflows.check(late.reference)
        world.payments.decide(made.provider_id, AccountState.ACTIVE)
        assert world.provider.inflows.check_account(made.provider_id)
        assert world.provider.inflows.check(late.reference)
        assert (world.wallet(), world.total(AccountKind.SUSPENSE)) == ((10, 0), 5)
        assert world.reconcile() == []

    @pytest.mark.parametrize(("mood", "state"), [("away", "failed"), ("refuse", "declined")])
    def test_request_without_effect_ends_and_can_be_made_again(
        self, world: World, mood: str, state: str
    ) -> None:
        world.payments.mood = mood
        made = world.ask_for_an_account()
        assert made is not None
        assert made.state.value == state
        world.payments.mood = "good"
        again = world.ask_for_an_account()
        assert again is not None
        assert again.state is AccountState.ACTIVE
        assert world.ask_for_an_account() is None

    def test_request_whose_answer_was_lost_is_found_by_our_reference(self, world: World) -> None:
        world.payments.mood = "lost"
        made = world.ask_for_an_account()
        assert made is not None
        assert made.state is AccountState.REQUESTED
        world.payments.mood = "good"
        world.time += timedelta(minutes=3)
        world.work()
        assert world.account(made.id).state is AccountState.ACTIVE

    def test_request_that_never_reached_the_provider_fails_once_it_cannot_appear(
        self, world: World
    ) -> None:
        made = world.store.run(lambda unit: world.numbers.request(unit, ADA, "NGN"))
        for minutes, state in ((3, AccountState.REQUESTED), (15, AccountState.FAILED)):
            world.time += timedelta(minutes=minutes)
            world.work()
            assert world.account(made.id).state is state
        # The account appears later: the provider's approval makes it active.
        issued = world.payments.request_account(made.id, "NGN", HOLDER)
        world.notify("account.approved", "id", issued.id)
        world.work()
        assert world.account(made.id).state is AccountState.ACTIVE

    def test_account_without_our_reference_is_found_by_the_provider_id(self, world: World) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        found = world.payments.issued_accounts[made.provider_id]
        told = replace(found, reference="", state=AccountState.CLOSED)
        world.payments.issued_accounts[made.provider_id] = told
        world.notify("closed", "id", made.provider_id)
        world.work()
        assert world.account(made.id).state is AccountState.CLOSED

    def test_account_that_is_not_ours_needs_no_further_check(self, world: World) -> None:
        made = world.payments.request_account("from-the-dashboard", "NGN", HOLDER)
        assert world.provider.inflows.check_account(made.id) is True
        assert world.provider.inflows.check_account("nothing") is False

    def test_a_late_end_changes_nothing(self, world: World) -> None:
        made = world.ask_for_an_account()
        assert made is not None
        end = world.numbers.end
        failed = AccountState.FAILED
        assert world.store.run(lambda unit: end(unit, ADA, made.id, failed, "x")) == made
        closed = replace(made, state=AccountState.CLOSED)
        world.store.run(lambda unit: unit.virtual_accounts.save(closed, None))
        world.store.run(lambda unit: world.numbers.put_off(unit, made.id, world.time))
        assert (
            world.store.run(lambda unit: unit.virtual_accounts.claim(world.time, world.time))
            is None
        )

    def test_an_event_that_comes_twice_sends_once(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        for _ in range(2):
            world.provider.payouts.send(id)
        assert world.payments.balance("NGN") == ngn(40)

    def test_worker_whose_lease_expired_sends_nothing(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        run = world.store.run

        def run_and_pause(change: Any) -> Any:
            done = run(change)
            world.time += LEASE
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "run", run_and_pause)
            world.provider.payouts.send(id)
        assert world.payments.payout(id) is None
        assert world.state(id) is WithdrawalState.SENDING

    @pytest.mark.parametrize(
        ("quiet", "state"),
        [
            (QUIET - timedelta(seconds=1), WithdrawalState.SENDING),
            (QUIET, WithdrawalState.FAILED),
        ],
    )
    def test_refusal_voids_the_reservation_once_no_sent_payout_can_appear(
        self, world: World, quiet: timedelta, state: WithdrawalState
    ) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.payments.mood = "late"
        world.work()
        found = world.store.read(lambda unit: unit.withdrawals.get(id))
        assert found.doubted_at == world.time
        world.payments.mood = "good"
        world.time += quiet

        def refuse_slowly(*_: object) -> Payout:
            world.time += LEASE / 2
            raise PaymentRefused("no")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.payments, "pay_out", refuse_slowly)
            world.provider.payouts()
        assert world.state(id) is state
        assert world.wallet() == (100, 60 if state is WithdrawalState.SENDING else 0)

    @pytest.mark.parametrize("fee", [0, 7])
    def test_payout_returned_after_payment_credits_its_owner(self, world: World, fee: int) -> None:
        world.funded(100)
        world.payments.fund(ngn(7))
        world.store.run(
            lambda unit: unit.ledger.book(receive("t", "capital", "c", ngn(0), (FEES, ngn(7))))
        )
        world.payments.fee = fee
        id = world.withdraw(60)
        world.work()
        for outcome in (PaymentOutcome.SUCCESSFUL, PaymentOutcome.FAILED):
            world.payments.finish(id, outcome, "the account is closed")
            for _ in range(2):
                world.notify(f"payout.{outcome.value}", "customerReference", id)
                world.work()
        assert world.state(id) is WithdrawalState.RETURNED
        assert world.store.read(lambda w: w.withdrawals.get(id)).failure == "the account is closed"
        assert (world.wallet(), world.total(AccountKind.FEES)) == ((100, 0), 7)
        assert world.reconcile() == []

    def test_payout_paid_after_refund_debits_suspense(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.work()
        for outcome in (PaymentOutcome.FAILED, PaymentOutcome.SUCCESSFUL):
            world.payments.finish(id, outcome)
            world.notify(f"payout.{outcome.value}", "customerReference", id)
            world.work()
        assert world.state(id) is WithdrawalState.PAID_LATE
        assert (world.wallet(), world.total(AccountKind.SUSPENSE)) == ((100, 0), -60)
        assert world.reconcile() == []

    def test_refused_payout_is_queried_once_per_review(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.payments.mood = "refuse"
        world.work()
        assert world.state(id) is WithdrawalState.FAILED
        assert world.provider.payouts.check(id) is True
        world.time += timedelta(days=1)
        assert [world.provider.notices() for _ in range(3)] == [1, 0, 0]

    @pytest.mark.parametrize("days", REVIEWS)
    def test_outcome_that_changes_without_a_notice_is_found_at_the_next_review(
        self, world: World, days: int
    ) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.work()
        world.payments.finish(id, PaymentOutcome.SUCCESSFUL)
        world.time += QUIET
        world.work()
        assert world.state(id) is WithdrawalState.PAID
        world.time += timedelta(days=days, seconds=-1)
        world.work()
        world.payments.finish(id, PaymentOutcome.FAILED)
        world.work()
        assert world.state(id) is WithdrawalState.PAID
        world.time += timedelta(seconds=1)
        world.work()
        assert world.state(id) is WithdrawalState.RETURNED

    def test_outcome_that_changes_twice_is_reported(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.work()
        definite = []
        for outcome in (
            PaymentOutcome.SUCCESSFUL,
            PaymentOutcome.FAILED,
            PaymentOutcome.SUCCESSFUL,
        ):
            world.payments.finish(id, outcome)
            definite.append(world.provider.payouts.check(id))
        assert definite == [True, True, False]
        assert world.state(id) is WithdrawalState.RETURNED
        assert world.wallet() == (100, 0)
        assert world.reconcile() == ["the payment provider holds NGN 0.40, the ledger NGN 1.00"]

    def test_settled_payout_of_another_amount_or_waiting_again_is_unchanged(
        self, world: World
    ) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.work()
        world.payments.finish(id, PaymentOutcome.SUCCESSFUL)
        assert world.provider.payouts.check(id)
        paid = world.payments.payout(id)
        assert paid is not None
        for change in ({"outcome": PaymentOutcome.WAITING}, {"amount": ngn(6)}):
            world.payments.payouts[id] = replace(paid, **change)
            assert world.provider.payouts.check(id) is False
        assert (world.state(id), world.wallet()) == (WithdrawalState.PAID, (40, 0))

    def test_payout_that_the_provider_accepted_and_lost_is_reported(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.work()
        del world.payments.payouts[id]
        for _ in range(5):
            world.time += QUIET
            world.work()
        assert world.state(id) is WithdrawalState.PROCESSING
        words = "the payment provider accepted it and does not know it now"
        assert f"withdrawal {id}: {words}" in world.reconcile()

    def test_payout_that_is_not_ours_is_checked_until_it_ends(self, world: World) -> None:
        world.payments.fund(ngn(100))
        world.payments.pay_out("from-the-dashboard", ngn(60), BANK)
        assert world.provider.payouts.check("from-the-dashboard") is False
        world.payments.finish("from-the-dashboard", PaymentOutcome.SUCCESSFUL)
        assert world.provider.payouts.check("from-the-dashboard") is True

    def test_fee_of_a_payout_debits_fees_and_reconciles_at_every_moment(self, world: World) -> None:
        world.funded(100)
        world.payments.fund(ngn(50))
        world.store.run(
            lambda unit: unit.ledger.book(receive("t", "capital", "c", ngn(0), (FEES, ngn(50))))
        )
        world.payments.fee = 7
        paid, failed = world.withdraw(60), world.withdraw(20)
        assert world.reconcile() == []
        world.work()
        assert world.reconcile() == []
        world.payments.finish(paid, PaymentOutcome.SUCCESSFUL)
        world.payments.finish(failed, PaymentOutcome.FAILED)
        assert world.reconcile() == []
        world.time += QUIET
        world.work()
        assert (world.wallet(), world.total(AccountKind.FEES)) == ((40, 0), 43)
        assert world.reconcile() == []

    def test_fee_that_only_a_later_answer_states_is_booked(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.funded(100)
        world.payments.fund(ngn(7))
        world.payments.fee = 7
        pay_out = world.payments.pay_out

        def at_once(reference: str, amount: Money, to: Destination) -> Payout:
            pay_out(reference, amount, to)
            world.payments.finish(reference, PaymentOutcome.SUCCESSFUL)
            return Payout(reference, PaymentOutcome.SUCCESSFUL, amount)

        monkeypatch.setattr(world.payments, "pay_out", at_once)
        id = world.withdraw(60)
        world.work()
        assert world.state(id) is WithdrawalState.SENDING
        world.time += timedelta(seconds=5)
        world.work()
        assert world.state(id) is WithdrawalState.PAID
        assert world.total(AccountKind.FEES) == -7

    def test_another_amount_at_the_provider_is_reported(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        world.payments.pay_out(id, ngn(59), BANK)
        world.work()
        world.payments.finish(id, PaymentOutcome.SUCCESSFUL)
        world.notify("payout.successful", "customerReference", id)
        for _ in range(3):
            world.time += QUIET
            world.work()
        assert world.wallet() == (100, 60)
        assert f"withdrawal {id}: NGN 0.60, at the payment provider NGN 0.59" in world.reconcile()

    @pytest.mark.parametrize("first", [100, 99])
    def test_a_second_payment_goes_to_suspense_once(self, world: World, first: int) -> None:
        id = world.deposit(100)
        for minor, event in ((first, "charge.successful"), (30, "collection.successful")):
            world.payments.pay(id, ngn(minor))
            world.notify(event, "reference", id)
            world.work()
        assert world.provider.checkouts.check(id)
        assert world.wallet() == (100 if first == 100 else 0, 0)
        suspense = Account(AccountKind.SUSPENSE, "NGN")
        wanted = 30 if first == 100 else 129
        assert world.store.read(lambda unit: unit.ledger.total(suspense)).minor == wanted
        assert world.store.read(lambda unit: unit.deposits.get(id)).received == ngn(first + 30)
        assert world.reconcile() == []

    def test_a_checkout_that_is_refused_fails_its_deposit(self, world: World) -> None:
        id = world.store.run(lambda unit: world.deposits.request(unit, ADA, ngn(5))).id
        world.payments.checkout(id, ngn(1), "a@b.org", "A")
        assert world.provider.checkouts.open(id).state.value == "failed"
        assert world.provider.checkouts.open(id).state.value == "failed"

    def test_the_events_of_a_busy_day_count_as_delivered(self, world: World) -> None:
        def change(unit: Any) -> None:
            for number in range(SKIP_AT_ONCE + 5):
                unit.publish(OutboxEvent(f"e{number:05}", "escrow.created", "s", {}, world.time))

        world.store.run(change)
        world.deliver()
        assert world.store.run(lambda w: w.outbox.skip([REQUESTED], world.time, 1)) == 0

    def test_reconciliation_without_a_provider_checks_only_the_ledger(self, world: World) -> None:
        world.funded(100)
        world.payments.fund(ngn(1))
        assert Reconcile(world.store, None)() == []
        assert world.reconcile() == ["the payment provider holds NGN 1.01, the ledger NGN 1.00"]
        world.payments.mood = "away"
        world.withdraw(10)
        world.deliver()
        assert "is unreachable" in world.reconcile()[0]

    def test_job_that_is_stopped_starts_nothing(self, world: World) -> None:
        world.funded(100)
        id = world.withdraw(60)
        for job in (world.deliver, world.provider.payouts):
            assert job(lambda: False) == 0
        assert world.state(id) is WithdrawalState.REQUESTED
