"""Virtual accounts at the provider: asking for one, and for what came in at it."""

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

NOT_REACHED = "the payment provider was not reached; ask again"


class Inflows:
    """Every call to the provider is outside the units of work; also a job of the worker.

    What the provider must know of a person is in memory for the one call that tells it. So a
    request that got lost cannot be repeated by a worker: it fails, and its owner asks anew.
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
        """Ask the provider for a requested account, once, and keep what it says.

        Raises ``AnswerUnknown``: then the worker asks what became of it.
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
        """Ask about the account that the provider calls so; whether that is all there is to do.

        Raises ``ProviderUnavailable``.
        """
        found = self._payments.account_named(provider_id)
        if found is None:
            return False
        ours = self._store.read(lambda unit: _find(unit, found))
        if ours is not None:
            self._update(ours, found)
        return True

    def check(self, reference: str) -> bool:
        """Ask about a transfer and book it; whether that was the provider's last word.

        Raises ``ProviderUnavailable``.
        """
        found = self._payments.inflow(reference)
        return found is not None and self._note(found)

    def __call__(self, going: Going = always) -> int:
        """Ask about what is due; a notice that got lost is made up for here."""
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
        """Whether something is known of it now."""
        payments = self._payments
        if account.provider_id:
            found = payments.account_named(account.provider_id)
        else:
            found = payments.account(account.id)
        if found is not None:
            self._update(account, found)
            return True
        # A request whose answer got lost may still appear there within this time.
        if self._context.now() - account.created_at < QUIET:
            return False
        return not self._end(CLOCK, account.id, AccountState.FAILED, NOT_REACHED).state.open

    def _update(self, account: VirtualAccount, found: IssuedAccount) -> None:
        """What came in at an account while it was active is its owner's, also when it is closed."""
        if was_active := account.state is AccountState.ACTIVE:
            self._catch_up(found.id)
        after = self._learn(CLOCK, account.id, found)
        # One that is closed may have been active in between, and nobody had heard of it.
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
    """Ours, by the reference that we gave it, or by the id that we once learned."""
    try:
        return unit.virtual_accounts.get(issued.reference)
    except KeyError:
        return unit.virtual_accounts.named(issued.id)
