"""The `Payments` of Fincra."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from decimal import ROUND_DOWN, Decimal, InvalidOperation

from amani_app.adapters.fincra import notices
from amani_app.adapters.fincra.client import (
    DUPLICATE,
    FincraClient,
    FincraCredentials,
    FincraRefusal,
)
from amani_app.domain.errors import MoneyError
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState, Destination
from amani_app.ports.payments import (
    AnswerUnknown,
    Collection,
    AccountHolder,
    Inflow,
    IssuedAccount,
    ProviderNotice,
    PaymentOutcome,
    PaymentRefused,
    Payout,
    UnknownPayee,
)

OUTCOMES: Mapping[str, PaymentOutcome] = {
    "success": PaymentOutcome.SUCCESSFUL,
    "successful": PaymentOutcome.SUCCESSFUL,
    "failed": PaymentOutcome.FAILED,
    "expired": PaymentOutcome.FAILED,
}
"""The value for success differs between the checkout and the rest; any other is waiting."""
STATES: Mapping[str, AccountState] = {
    "approved": AccountState.ACTIVE,
    "issued": AccountState.ACTIVE,
    "declined": AccountState.DECLINED,
    "closed": AccountState.CLOSED,
    "deactivated": AccountState.CLOSED,
}
"""The states of a virtual account; any other value is pending."""
SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONG_NUMBER = re.compile(r"\d{5,}")


class FincraPayments:
    """Deposits, virtual accounts and payouts through Fincra's HTTP API."""

    def __init__(self, credentials: FincraCredentials, client: FincraClient | None = None) -> None:
        self._credentials = credentials
        self._client = client or FincraClient(credentials)

    def checkout(self, reference: str, amount: Money, email: str, name: str) -> str:
        """The payer bears Fincra's fee; otherwise less than `amount` would arrive."""
        body = {
            # A float of at most 15 digits is serialized with exactly those digits.
            "amount": float(amount.major),
            "currency": amount.currency,
            "reference": reference,
            "customer": {"name": name, "email": email},
            "feeBearer": "customer",
            "settlementDestination": "wallet",
        }
        match self._client.post("/checkout/payments", body):
            case {"link": str(link)} if link.startswith(("https://", "http://")):
                return link
        raise AnswerUnknown("a checkout without a link")

    def collection(self, reference: str) -> Collection | None:
        """Queries by our reference; only the received amount counts, not the requested one."""
        path = f"/checkout/payments/merchant-reference/{_safe(reference)}"
        try:
            data = self._client.get(path)
        except KeyError:
            return None
        match data:
            case {"reference": str(named), "status": str(status), "currency": str(currency)} if (
                named == reference
            ):
                received = _money(data.get("amountReceived") or 0, currency)
                link = data.get("link")
                outcome = OUTCOMES.get(status.lower(), PaymentOutcome.WAITING)
                # A fee that the payer bears is paid on top of the amount that we receive.
                ours = data.get("feeBearer") == "business"
                fee = _fee(data, currency) if ours else None
                return Collection(reference, outcome, received, link if link else "", fee)
        raise AnswerUnknown("a collection in an unknown shape")

    def request_account(
        self, reference: str, currency: str, holder: AccountHolder
    ) -> IssuedAccount:
        """Fincra approves individual accounts in naira at once, and reviews others by hand."""
        body = {
            "currency": currency,
            "accountType": "individual",
            "merchantReference": reference,
            "KYCInformation": {
                "firstName": holder.first_name,
                "lastName": holder.last_name,
                "email": holder.email,
                "bvn": holder.bvn,
            },
        }
        try:
            return _issued(self._client.post("/profile/virtual-accounts/requests", body), reference)
        except FincraRefusal as refusal:
            # The message may quote the BVN.
            raise PaymentRefused(LONG_NUMBER.sub("...", str(refusal))) from None

    def account(self, reference: str) -> IssuedAccount | None:
        """Searches the listed requests for `reference`, because the API may ignore the filter."""
        path = "/profile/virtual-accounts/requests"
        for data in self._list(path, merchantReference=reference):
            match data:
                case {"merchantReference": named} if named == reference:
                    return _issued(data, reference)
        return None

    def account_named(self, id: str) -> IssuedAccount | None:
        """Queries by Fincra's id; the response contains our reference."""
        try:
            data = self._client.get(f"/profile/virtual-accounts/{_safe(id)}")
        except KeyError:
            return None
        match data:
            case {"_id": str(named)} if named == id:
                return _issued(data, str(data.get("merchantReference") or ""))
        raise AnswerUnknown("a virtual account in an unknown shape")

    def inflow(self, reference: str) -> Inflow | None:
        """Queries by Fincra's reference, because a transfer has none of ours."""
        path = f"/collections/reference/{_safe(reference)}"
        try:
            data = self._client.get(path, business=self._credentials.business_id)
        except KeyError:
            return None
        found = _inflow(data)
        if found.reference != reference:
            raise AnswerUnknown("the response is about another transfer")
        return found

    def inflows(self, id: str) -> list[Inflow]:
        business = self._credentials.business_id
        found = self._list("/collections", business=business, virtualAccount=_safe(id))
        return list(map(_inflow, found))

    def payee(self, bank_code: str, account_number: str, currency: str) -> str:
        body = {
            "type": "nuban",
            "currency": currency,
            "bankCode": bank_code,
            "accountNumber": account_number,
        }
        try:
            data = self._client.post("/core/accounts/resolve", body)
        except FincraRefusal as refusal:
            message = f"the bank {bank_code} has no account with this number"
            raise UnknownPayee(message) from refusal
        match data:
            case {"accountName": str(name)} if name.strip():
                return name.strip()[:200]
        raise AnswerUnknown("an account without a name")

    def pay_out(self, reference: str, amount: Money, to: Destination) -> Payout:
        """Fincra refuses a used reference; the first payout is then queried and returned."""
        body = {
            "business": self._credentials.business_id,
            "sourceCurrency": amount.currency,
            "destinationCurrency": amount.currency,
            "amount": amount.major,
            "description": f"Amani {reference}",
            "paymentDestination": "bank_account",
            "customerReference": reference,
            "beneficiary": {
                "firstName": to.account_name,
                "accountHolderName": to.account_name,
                "accountNumber": to.account_number,
                "bankCode": to.bank_code,
                "type": "individual",
            },
        }
        try:
            data = self._client.post("/disbursements/payouts", body)
        except FincraRefusal as refusal:
            if refusal.kind != DUPLICATE:
                raise
            if (known := self.payout(reference)) is None:
                raise AnswerUnknown("a payout is reported as a duplicate and as unknown") from None
            return known
        match data:
            case {"status": str(status)}:
                outcome = OUTCOMES.get(status.lower(), PaymentOutcome.WAITING)
                fee = _fee(data, amount.currency)
                return Payout(reference, outcome, amount, _reason(data), fee)
        raise AnswerUnknown("a payout without a status")

    def payout(self, reference: str) -> Payout | None:
        path = f"/disbursements/payouts/customer-reference/{_safe(reference)}"
        try:
            data = self._client.get(path)
        except KeyError:
            return None
        match data:
            case {
                "customerReference": str(named),
                "status": str(status),
                "amount": amount,
                "currency": str(currency),
            } if (
                named == reference
            ):
                outcome = OUTCOMES.get(status.lower(), PaymentOutcome.WAITING)
                fee, sent = _fee(data, currency), _money(amount, currency)
                return Payout(reference, outcome, sent, _reason(data), fee)
        raise AnswerUnknown("a payout in an unknown shape")

    def balance(self, currency: str) -> Money:
        """The ledger balance of our wallet in `currency`; zero if there is no wallet."""
        try:
            data = self._client.get("/wallets", businessID=self._credentials.business_id)
        except KeyError:
            data = []
        if not isinstance(data, list):
            raise AnswerUnknown("wallets in an unknown shape")
        for wallet in data:
            match wallet:
                case {"currency": named, "ledgerBalance": amount} if named == currency:
                    return _money(amount, currency)
        return Money.zero(currency)

    def _list(self, path: str, **query: str) -> list[Any]:
        try:
            data = self._client.get(path, **query)
        except KeyError:
            return []
        match data:
            case list(found) | {"results": list(found)}:
                return found
        raise AnswerUnknown("a list in an unknown shape")

    def read_notice(self, raw: bytes, headers: Mapping[str, str]) -> ProviderNotice:
        """Verifies the header `signature` over the raw body, in constant time."""
        return notices.read(self._credentials.webhook_secret, raw, headers.get("signature", ""))


def _issued(data: Any, reference: str) -> IssuedAccount:
    match data:
        case {"_id": str(id), "status": str(status)} if SAFE.fullmatch(id):
            reported = data.get("accountInformation") or {}
            state = STATES.get(status.lower(), AccountState.PENDING)
            number = _plain(reported.get("accountNumber"), 40)
            if state is AccountState.ACTIVE and data.get("isActive") is False:
                state = AccountState.CLOSED
            elif state is AccountState.ACTIVE and not number:
                state = AccountState.PENDING
            return IssuedAccount(
                reference,
                id,
                state,
                bank_name=_plain(reported.get("bankName"), 100),
                account_number=number,
                account_name=_plain(reported.get("accountName"), 200),
                reason=LONG_NUMBER.sub("...", _plain(data.get("reason"), 200)),
            )
    raise AnswerUnknown("a virtual account in an unknown shape")


def _inflow(data: Any) -> Inflow:
    match data:
        case {
            "reference": str(reference),
            "status": str(status),
            "payeeAccountNumber": str(number),
            "destinationCurrency": str(currency),
            "destinationAmount": whole,
        } if SAFE.fullmatch(reference):
            amount = _money(whole, currency)
            outcome = OUTCOMES.get(status.lower(), PaymentOutcome.WAITING)
            settled = amount
            if outcome is PaymentOutcome.SUCCESSFUL:
                settled = _money(data.get("destinationAmountSettled"), currency)
            if not Money.zero(currency) <= settled <= amount:
                raise AnswerUnknown("more was settled than was sent")
            return Inflow(reference, outcome, number, amount, amount - settled)
    raise AnswerUnknown("a transfer in an unknown shape")


def _plain(value: Any, length: int) -> str:
    """A text without control characters, which PostgreSQL may not hold."""
    return "".join(filter(str.isprintable, str(value or "")))[:length]


def _safe(reference: str) -> str:
    if not SAFE.fullmatch(reference):
        raise ValueError(f"{reference!r} is no reference")
    return reference


def _money(value: Any, currency: str) -> Money:
    """A JSON number or string of major units; fractions of a minor unit are cut off.

    Raises `AnswerUnknown` for any other value.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
            raise InvalidOperation
        exponent = Money.zero(currency).exponent
        minor = Decimal(value).scaleb(exponent).to_integral_value(ROUND_DOWN)
        return Money(int(minor), currency)
    except (InvalidOperation, MoneyError, OverflowError, ValueError):
        raise AnswerUnknown("an amount in an unknown shape") from None


def _fee(data: Mapping[str, Any], currency: str) -> Money | None:
    """Fincra's fee, which is never negative; `None` if it is not reported."""
    reported = data.get("fee")
    if reported is None:
        return None
    fee = _money(reported, currency)
    if fee.minor < 0:
        raise AnswerUnknown("a negative fee")
    return fee


def _reason(data: Mapping[str, Any]) -> str:
    return str(data.get("reason") or data.get("failureReason") or "")[:200]
