"""The `Payments` of bank transfer by hand."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError

from amani_app.adapters.manual.records import AlreadyRecorded, TransferRecords, TransferRequest
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.ports.payments import (
    AnswerUnknown,
    Collection,
    ForgedNotice,
    AccountHolder,
    Inflow,
    IssuedAccount,
    ProviderNotice,
    NoticeKind,
    PaymentOutcome,
    PaymentRefused,
    Payout,
    ProviderUnavailable,
)

NAME_NOT_CHECKED = "name not checked"
"""The account name of every destination: only the operator's bank could check it."""
EVENTS: Mapping[str, NoticeKind] = {
    "deposit.received": NoticeKind.COLLECTION,
    "deposit.failed": NoticeKind.COLLECTION,
    "payout.sent": NoticeKind.PAYOUT,
    "payout.failed": NoticeKind.PAYOUT,
}
REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
LINE = re.compile(r"[A-Za-z0-9._-]{0,32}")


class ManualPayments:
    """Deposits and payouts by hand. `payto` is the account that receives deposits."""

    def __init__(self, records: TransferRecords, payto: str, secret: str) -> None:
        self._records = records
        self._payto = payto
        self._secret = secret

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        """A `payto:` URI; the payer must give the reference as the message of the transfer."""
        with _reachable(AnswerUnknown):
            try:
                self._records.add(TransferRequest(reference, "in", amount))
            except AlreadyRecorded as error:
                raise PaymentRefused(str(error)) from None
        return self._link(reference, amount)

    def collection(self, reference: str) -> Collection | None:
        """Successful as soon as a line of the statement names the reference.

        A reference without a checkout is reported as well, so that the money reaches suspense.
        Money in another currency than the checkout's is reported if none came in that currency.
        """
        with _reachable():
            request, received = self._records.get(reference), self._records.received(reference)
        if request is None or request.kind != "in":
            return (
                Collection(reference, PaymentOutcome.SUCCESSFUL, received[0]) if received else None
            )
        mine = (each for each in received if each.currency == request.amount.currency)
        got = next(mine, received[0] if received else Money.zero(request.amount.currency))
        return Collection(reference, request.outcome, got, self._link(reference, request.amount))

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        raise PaymentRefused("bank transfer by hand offers no virtual accounts; make a deposit")

    def account(self, reference: str) -> IssuedAccount | None:
        return None

    def account_named(self, id: str) -> IssuedAccount | None:
        return None

    def inflow(self, reference: str) -> Inflow | None:
        """Always `None`, because every transfer is a collection."""
        return None

    def inflows(self, id: str) -> list[Inflow]:
        return []

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        """A fixed text: the operator checks the name before the transfer."""
        return NAME_NOT_CHECKED

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """The payout stays `WAITING` until the operator records its outcome."""
        with _reachable(AnswerUnknown):
            try:
                self._records.add(TransferRequest(reference, "out", amount, to))
            except AlreadyRecorded:
                known = self.payout(reference)
                if known is None:
                    raise PaymentRefused(f"the reference {reference} is a deposit's") from None
                return known
        return Payout(reference, PaymentOutcome.WAITING, amount)

    def payout(self, reference: str) -> Payout | None:
        """The fee is the one that the operator has recorded with the outcome."""
        with _reachable():
            found = self._records.get(reference)
        if found is None or found.kind != "out":
            return None
        fee = (
            None
            if found.outcome is PaymentOutcome.WAITING
            else Money(found.fee, found.amount.currency)
        )
        return Payout(reference, found.outcome, found.amount, found.reason, fee)

    def balance(self, currency: str) -> Money:
        """The records' balance; equals the bank's if the operator records every transfer."""
        with _reachable():
            return self._records.balance(currency)

    def read_notice(self, raw: bytes, headers: Mapping[str, str]) -> ProviderNotice:
        """The header `signature` is a hexadecimal HMAC-SHA256 of `raw`."""
        given = headers.get("signature", "").encode("utf-8", "replace")
        if not hmac.compare_digest(sign(self._secret, raw).encode(), given):
            raise ForgedNotice
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise ValueError("the notice is not JSON") from None
        match body:
            case {"event": str(event), "data": {"reference": str(reference)} as data}:
                line = str(data.get("line", ""))
                if event in EVENTS and REFERENCE.fullmatch(reference) and LINE.fullmatch(line):
                    # The line in the status makes a second transfer another notice.
                    return ProviderNotice(EVENTS[event], event, reference, line)
        raise ValueError(f"a notice needs data.reference, and an event of {', '.join(EVENTS)}")

    def _link(self, reference: str, amount: Money) -> str:
        message = quote(reference, safe="")
        return f"{self._payto}?amount={amount.currency}:{amount.major}&message={message}"


def sign(secret: str, raw: bytes) -> str:
    """The value of the `signature` header."""
    return hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


@contextmanager
def _reachable(error: type[ProviderUnavailable] = ProviderUnavailable) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as cause:
        raise error(f"the records are unreachable: {type(cause).__name__}") from None
