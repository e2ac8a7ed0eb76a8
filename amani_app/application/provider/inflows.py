"""Virtual accounts at the provider: requesting them, and querying transfers into them."""

from __future__ import annotations

from amani_app.application.common.acting import CLOCK, Actor, Context
from amani_app.application.provider.payouts import QUIET
from amani_app.application.common.queues import LEASE, Going, always, drain, wait
from amani_app.application.requests.virtual_accounts import INFLOW, VirtualAccountUseCases
from amani_app.domain.payments import AccountState, VirtualAccount
from amani_app.ports.payments import (
    AnswerUnknown,
    AccountHolder,
    Inflow,
    IssuedAccount,
    PaymentOutcome,
    PaymentRefused,
    Payments,
    ProviderUnavailable,
)
from amani_app.ports.store import AlreadyBooked, Store, UnitOfWork

NOT_REACHED = "the payment provider was unreachable; repeat the request"


class Inflows:
    """Requests and checks virtual accounts; also a job of the worker.

    Calls no provider in a unit of work. KYC data is in memory for one call only, so a worker cannot
    repeat a request that was lost: it fails, and its owner repeats it.
    """

    name = "check-virtual-accounts"

    def __init__(
        self,
        context: Context,
        store: Store,
        payments: Payments,
        accounts: VirtualAccountUseCases,
    ) -> None:
        self._context = context
        self._store = store
        self._payments = payments
        self._accounts = accounts

    def issue(self, id: str, holder: AccountHolder, actor: Actor = CLOCK) -> VirtualAccount:
        """Request the account from the provider, once, and store the response.

        Raises `AnswerUnknown`; the worker then queries the outcome.
        """
        account = self._store.read(lambda unit: unit.virtual_accounts.get(id))
        try:
            issued = self._payments.request_account(id, account.currency, holder)
        except PaymentRefused as refusal:
            return self._end(actor, id, AccountState.DECLINED, str(refusal))
        except AnswerUnknown:
            raise
        except ProviderUnavailable:
            return self._end(actor, id, AccountState.FAILED, NOT_REACHED)
        return self._learn(actor, id, issued)

    def check_account(self, provider_id: str) -> bool:
        """Query the account with the provider's id; returns whether the provider knows it.

        Raises `ProviderUnavailable`.
        """
        found = self._payments.account_named(provider_id)
        if found is None:
            return False
        ours = self._store.read(lambda unit: _find(unit, found))
        if ours is not None:
            self._update(ours, found)
        return True

    def check(self, reference: str) -> bool:
        """Query a transfer and book it; returns whether its outcome is final.

        Raises `ProviderUnavailable`.
        """
        found = self._payments.inflow(reference)
        return found is not None and self._note(found)

    def __call__(self, going: Going = always) -> int:
        """Query what is due. This also finds transfers whose notice was lost."""
        return drain(self._claim, self._do, going)

    def _claim(self) -> tuple[VirtualAccount, int] | None:
        now = self._context.now()
        return self._store.run(lambda unit: unit.virtual_accounts.claim(now, now + LEASE))

    def _do(self, claimed: tuple[VirtualAccount, int]) -> None:
        account, attempts = claimed
        try:
            if not self._ask(account):
                self._put_off(account.id, attempts)
        except ProviderUnavailable:
            self._put_off(account.id, attempts)

    def _ask(self, account: VirtualAccount) -> bool:
        """Query the account; returns whether its state is known now."""
        payments = self._payments
        if account.provider_id:
            found = payments.account_named(account.provider_id)
        else:
            found = payments.account(account.id)
        if found is not None:
            self._update(account, found)
            return True
        # A request whose response was lost may still appear within this time.
        if self._context.now() - account.created_at < QUIET:
            return False
        return not self._end(CLOCK, account.id, AccountState.FAILED, NOT_REACHED).state.open

    def _update(self, account: VirtualAccount, found: IssuedAccount) -> None:
        """Store the account's state, and book the transfers of the time when it was active."""
        if was_active := account.state is AccountState.ACTIVE:
            self._catch_up(found.id)
        after = self._learn(CLOCK, account.id, found)
        # A closed account may have been active in between, without a notice.
        if after.state in (AccountState.ACTIVE, AccountState.CLOSED) and not was_active:
            self._catch_up(found.id)

    def _catch_up(self, provider_id: str) -> None:
        found = {each.reference: each for each in self._payments.inflows(provider_id)}
        names = list(found)
        known = self._store.read(lambda unit: unit.ledger.booked(INFLOW, names))
        for reference in found.keys() - known:
            self._note(found[reference])

    def _note(self, found: Inflow) -> bool:
        try:
            self._store.run(lambda unit: self._accounts.settle(unit, CLOCK, found))
        except AlreadyBooked:
            pass  # By another worker, or for another notice of the same transfer.
        return found.outcome is not PaymentOutcome.WAITING

    def _learn(self, actor: Actor, id: str, issued: IssuedAccount) -> VirtualAccount:
        return self._store.run(lambda unit: self._accounts.learn(unit, actor, id, issued))

    def _end(self, actor: Actor, id: str, state: AccountState, why: str) -> VirtualAccount:
        return self._store.run(lambda unit: self._accounts.end(unit, actor, id, state, why))

    def _put_off(self, id: str, attempts: int) -> None:
        due = self._context.now() + wait(attempts + 5)
        self._store.run(lambda unit: self._accounts.put_off(unit, id, due))


def _find(unit: UnitOfWork, issued: IssuedAccount) -> VirtualAccount | None:
    """Our account, by our reference or by the provider's id."""
    try:
        return unit.virtual_accounts.get(issued.reference)
    except KeyError:
        return unit.virtual_accounts.named(issued.id)
