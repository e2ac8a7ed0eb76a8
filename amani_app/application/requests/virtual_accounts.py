"""Virtual accounts: a bank account number of one's own, to bring money in by bank transfer."""

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
"""The reason of what comes in at a virtual account: with the provider's reference it is unique."""
LOOK_EVERY = timedelta(hours=1)
"""How often the provider is asked what came in at an account, for notices that got lost."""


class AccountExists(DomainError):
    """The person has such an account, or has asked for it."""

    code = "virtual-account-exists"


class VirtualAccountUseCases:
    """To be called inside a unit of work; nothing here speaks to the provider."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def request(self, unit: UnitOfWork, actor: Actor, currency: str) -> VirtualAccount:
        """The actor wants an account. Raises ``AccountExists`` while there is one.

        Who they are is told to the provider after this, and never comes in here.
        """
        mine = unit.virtual_accounts.of(actor.user, None, 100)
        if any(each.state.open and each.currency == currency for each in mine):
            raise AccountExists(f"you have, or have asked for, a virtual account in {currency}")
        now = self._context.now()
        made = VirtualAccount(self._context.new_id(), actor.user, currency, now)
        unit.virtual_accounts.add(made, now + POLL_AFTER)
        self._record(unit, actor, made, None, currency=currency)
        return made

    def read(self, unit: UnitOfWork, actor: Actor, id: str) -> VirtualAccount:
        """One of the actor's own. Raises ``NotFound``."""
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
        """Keep what the provider says of an account, and look again as its state demands."""
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
        """There will be none; what has gone on meanwhile stays as it is."""
        before = unit.virtual_accounts.get(id, lock=True)
        if before.state is not AccountState.REQUESTED:
            return before
        return self._save(unit, actor, before, replace(before, state=state, failure=why[:200]))

    def put_off(self, unit: UnitOfWork, id: str, due: datetime) -> None:
        """Look at it again when it is *due*, as long as it is open."""
        found = unit.virtual_accounts.get(id, lock=True)
        if found.state.open:
            unit.virtual_accounts.save(found, due)

    def settle(self, unit: UnitOfWork, actor: Actor, found: Inflow) -> None:
        """Book what the provider says has come in: to the account's owner, or to suspense.

        The whole amount is credited, and the provider's fee is ours to bear. Where the number is
        nobody's, or of an account that was closed, it goes to suspense. Raises ``AlreadyBooked``
        when it stands there: one transfer has one booking, whoever it is for.
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
