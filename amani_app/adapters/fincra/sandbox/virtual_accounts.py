"""The sandbox's virtual accounts."""

from __future__ import annotations

import secrets
from typing import Any, cast

from flask import Flask, Response, jsonify, request

from amani_app.adapters.fincra.sandbox.payments import MemoryPayments
from amani_app.domain.money import Money
from amani_app.domain.payments import AccountState
from amani_app.ports.payments import AccountHolder, Inflow, IssuedAccount, PaymentRefused
from amani_app.adapters.fincra.sandbox.answers import STATUSES, major, refuse
from amani_app.adapters.fincra.sandbox.webhooks import Switches, Webhooks

ACCOUNT_STATUSES = {
    AccountState.PENDING: "pending",
    AccountState.ACTIVE: "approved",
    AccountState.DECLINED: "declined",
    AccountState.CLOSED: "closed",
}


def install_virtual_accounts(app: Flask, books: MemoryPayments, switches: Switches) -> None:
    """Add the routes that request and return virtual accounts."""

    @app.post("/profile/virtual-accounts/requests")
    def _request() -> Response:
        body = request.get_json()
        known = body["KYCInformation"]
        holder = AccountHolder(known["firstName"], known["lastName"], known["email"], known["bvn"])
        books.accounts = AccountState(switches.accounts)
        try:
            made = books.request_account(body["merchantReference"], body["currency"], holder)
        except PaymentRefused as error:
            raise refuse(400, "VALIDATION_FAILED", str(error)) from None
        return jsonify(success=True, message="Requested", data=_account_body(made))

    @app.get("/profile/virtual-accounts/requests")
    def _list() -> Response:
        found = books.account(request.args["merchantReference"])
        data = {"results": [_account_body(found)] if found else [], "total": int(found is not None)}
        return jsonify(success=True, message="Requests fetched", data=data)

    @app.get("/profile/virtual-accounts/<id>")
    def _read_account(id: str) -> Response:
        found = books.account_named(id)
        if found is None:
            raise KeyError(id)
        return jsonify(success=True, message="Virtual account fetched", data=_account_body(found))


def install_transfers(app: Flask, books: MemoryPayments, webhooks: Webhooks) -> None:
    """Add the routes that return transfers and simulate a new one."""

    @app.get("/collections/reference/<reference>")
    def _inflow(reference: str) -> Response:
        found = books.inflow(reference)
        if found is None:
            raise KeyError(reference)
        return jsonify(success=True, message="Collection fetched", data=_transfer(found))

    @app.get("/collections")
    def _inflows() -> Response:
        found = books.inflows(request.args["virtualAccount"])
        data = {"results": list(map(_transfer, found)), "total": len(found)}
        return jsonify(success=True, message="Collections fetched", data=data)

    @app.post("/sandbox/transfer")
    def _pay_in() -> Response:
        body = request.get_json()
        number, currency = body["account_number"], body.get("currency", "NGN")
        amount, fee = (Money.parse(major(body.get(n, 0)), currency) for n in ("amount", "fee"))
        reference = body.get("reference") or f"fcr-{secrets.token_hex(8)}"
        made = books.transfer(number, amount, fee, reference)
        data = {
            "virtualAccount": books.id_of(number) or "0" * 24,
            "sourceCurrency": currency,
            "destinationCurrency": currency,
            "sourceAmount": float(amount.major),
            "destinationAmount": float(amount.major),
            "amountReceived": float((amount - fee).major),
            "fee": float(fee.major),
            "customerName": "Somebody",
            "status": STATUSES[made.outcome],
            "reference": reference,
        }
        webhooks.notify(f"collection.{STATUSES[made.outcome]}", data)
        return jsonify(_transfer(made))


def install_decisions(app: Flask, books: MemoryPayments, webhooks: Webhooks) -> None:
    """Add the route that sets the state of an account and sends the notice."""

    @app.post("/sandbox/account")
    def _decide() -> Response:
        body = request.get_json()
        found = cast(IssuedAccount, books.account(body["reference"]))
        books.decide(found.id, AccountState(body["status"]), body.get("reason", ""))
        decided = cast(IssuedAccount, books.account_named(found.id))
        status = ACCOUNT_STATUSES[decided.state]
        data = {**_account_body(decided), "id": decided.id, "status": status}
        webhooks.notify(body.get("event", f"virtualaccount.{status}"), data)
        return jsonify(success=True)


def _account_body(found: IssuedAccount) -> dict[str, Any]:
    return {
        "_id": found.id,
        "merchantReference": found.reference,
        "status": ACCOUNT_STATUSES[found.state],
        "isActive": found.state is AccountState.ACTIVE,
        "accountNumber": found.account_number or None,
        "accountInformation": {
            "accountNumber": found.account_number or None,
            "accountName": found.account_name,
            "bankName": found.bank_name,
        },
        "reason": found.reason or None,
    }


def _transfer(found: Inflow) -> dict[str, Any]:
    settled = found.amount - found.fee
    return {
        "reference": found.reference,
        "status": STATUSES[found.outcome],
        "payeeAccountNumber": found.account_number,
        "destinationCurrency": found.amount.currency,
        "destinationAmount": float(found.amount.major),
        "destinationAmountSettled": float(settled.major),
        "destinationFee": float(found.fee.major),
    }
