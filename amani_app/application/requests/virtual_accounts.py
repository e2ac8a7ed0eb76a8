"""Virtual accounts: a bank account number for deposits by bank transfer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from amani_app.application.common.acting import Actor, NotFound, Context
from amani_app.application.common.queues import LONGEST_WAIT, POLL_AFTER
from amani_app.domain.errors import DomainError
from amani_app.domain.ledger import Account, AccountKind, receive
from amani_app.domain.payments import AccountState, VirtualAccount
from amani_app.ports.payments import Inflow, IssuedAccount, PaymentOutcome
from amani_app.ports.store import UnitOfWork

INFLOW = "inflow"
"""The reason of transfers into virtual accounts; unique with the provider's reference."""
LOOK_EVERY = timedelta(hours=1)
"""Interval between queries of an account's transfers, in case a notice was lost."""


class AccountExists(DomainError):
    """The user has such an account, or has requested one."""

    code = "virtual-account-exists"


class VirtualAccountUseCases:
    """Call these methods inside a unit of work. They never call the provider."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, unit: UnitOfWork, actor: Actor, currency: str) -> VirtualAccount:
        """Create a request for an account. Raises `AccountExists` while there is one.

        KYC data is sent to the provider afterwards and is never passed to this method.
        """
        mine = unit.virtual_accounts.of(actor.user, None, 100)
        if any(each.state.open and each.currency == currency for each in mine):
            raise AccountExists(f"there is a virtual account in {currency}, or a request for one")
        now = self._context.now()
        made = VirtualAccount(self._context.new_id(), actor.user, currency, now)
        unit.virtual_accounts.add(made, now + POLL_AFTER)
        self._record(unit, actor, made, None, currency=currency)
        return made

    def read(self, unit: UnitOfWork, actor: Actor, id: str) -> VirtualAccount:
        """Return an account of the actor. Raises `NotFound`."""
        try:
            found = unit.virtual_accounts.get(id)
        except KeyError:
            raise NotFound(f"no virtual account {id}") from None
        if found.owner != actor.user:
            raise NotFound(f"no virtual account {id}")
        return found

    def learn(
        self, unit: UnitOfWork, actor: Actor, id: str, issued: IssuedAccount
    ) -> VirtualAccount:
        """Store the state of an account, and set when it is due again."""
        before = unit.virtual_accounts.get(id, lock=True)
        after = replace(
            before,
            state=issued.state,
            provider_id=issued.id or before.provider_id,
            bank_name=issued.bank_name or before.bank_name,
            account_number=issued.account_number or before.account_number,
            account_name=issued.account_name or before.account_name,
            failure=issued.reason[:200],
        )
        return self._save(unit, actor, before, after)

    def end(
        self, unit: UnitOfWork, actor: Actor, id: str, state: AccountState, why: str
    ) -> VirtualAccount:
        """End a request without an account. No effect in a later state."""
        before = unit.virtual_accounts.get(id, lock=True)
        if before.state is not AccountState.REQUESTED:
            return before
        return self._save(unit, actor, before, replace(before, state=state, failure=why[:200]))

    def put_off(self, unit: UnitOfWork, id: str, due: datetime) -> None:
        """Process it again at `due`, if it is open."""
        found = unit.virtual_accounts.get(id, lock=True)
        if found.state.open:
            unit.virtual_accounts.save(found, due)

    def settle(self, unit: UnitOfWork, actor: Actor, found: Inflow) -> None:
        """Book a transfer into a virtual account.

        The whole amount is credited to the owner, and Amani bears the provider's fee. A transfer to
        an unknown or closed account goes to suspense. Raises `AlreadyBooked` if the transfer is
        in the ledger.
        """
        if found.outcome is not PaymentOutcome.SUCCESSFUL or found.amount.minor <= 0:
            return
        currency = found.amount.currency
        account = unit.virtual_accounts.active(found.account_number, currency)
        target = Account(AccountKind.SUSPENSE, currency)
        if account is not None:
            target = Account(AccountKind.WALLET, currency, account.owner)
        credit = (target, found.amount)
        id = self._context.new_id()
        unit.ledger.book(receive(id, INFLOW, found.reference, found.fee, credit))
        topic, subject = "inflow.unattributed", found.reference
        if account is not None:
            topic, subject = "inflow.credited", account.id
        self._context.record(
            unit, actor, topic, subject, "", str(found.amount), reference=found.reference
        )

    def _save(
        self, unit: UnitOfWork, actor: Actor, before: VirtualAccount, after: VirtualAccount
    ) -> VirtualAccount:
        wait = LOOK_EVERY if after.state is AccountState.ACTIVE else LONGEST_WAIT
        due = self._context.now() + wait if after.state.open else None
        unit.virtual_accounts.save(after, due)
        if after.state is not before.state:
            self._record(unit, actor, after, before)
        return after

    def _record(
        self,
        unit: UnitOfWork,
        actor: Actor,
        after: VirtualAccount,
        before: VirtualAccount | None,
        **payload: str,
    ) -> None:
        topic = f"virtual-account.{after.state.value}"
        was = before.state.value if before else ""
        self._context.record(unit, actor, topic, after.id, was, after.state.value, **payload)
