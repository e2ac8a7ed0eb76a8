"""The sandbox's routes: those of Fincra, and under `/sandbox` those that control it."""

from __future__ import annotations

import hmac
from typing import Any, cast
from dataclasses import asdict

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from amani_app.adapters.fincra.sandbox.payments import MemoryPayments
from amani_app.domain.errors import DomainError, MoneyError
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.ports.payments import Collection, PaymentOutcome, PaymentRefused, Payout
from amani_app.adapters.fincra.sandbox.answers import STATUSES, SandboxRefusal, major, refuse
from amani_app.adapters.fincra.sandbox.virtual_accounts import (
    install_decisions,
    install_transfers,
    install_virtual_accounts,
)
from amani_app.adapters.fincra.sandbox.webhooks import Switches, Webhooks

DUPLICATE = "DUPLICATE_CUSTOMER_REFERENCE"
CHECKOUT_STATUSES = {
    PaymentOutcome.WAITING: "pending",
    PaymentOutcome.SUCCESSFUL: "success",
    PaymentOutcome.FAILED: "expired",
}


def create_sandbox(
    webhook_url: str,
    webhook_secret: str,
    secret_key: str,
    public_url: str = "",
    switches: Switches | None = None,
) -> Flask:
    """A WSGI application that answers as Fincra does and notifies `webhook_url`.

    `secret_key` is the API key that it requires; `public_url` is its URL for payers.
    """
    books = MemoryPayments(base=public_url)
    switches = switches or Switches()
    webhooks = Webhooks(webhook_url, webhook_secret, switches)
    app = Flask("sandbox", static_folder=None)
    app.extensions["sandbox"] = (books, switches, webhooks)
    _install_gate(app, secret_key, switches)
    _install_errors(app)
    _install_checkout(app, books, webhooks)
    _install_accounts(app, books)
    install_virtual_accounts(app, books, switches)
    install_transfers(app, books, webhooks)
    install_decisions(app, books, webhooks)
    _install_payouts(app, books, switches, webhooks)
    _install_controls(app, books, switches, webhooks)
    return app


def _install_gate(app: Flask, secret_key: str, switches: Switches) -> None:
    @app.before_request
    def _gate() -> None:
        if request.path.startswith(("/sandbox", "/pay/")):
            return
        given = request.headers.get("api-key", "")
        if not hmac.compare_digest(given.encode(), secret_key.encode()):
            body = {"message": "Invalid API key", "error": "Unauthorized", "statusCode": 401}
            raise SandboxRefusal(401, body)
        if switches.answers == "away":
            raise refuse(503, "SERVICE_UNAVAILABLE", "try again")
        if switches.answers == "limit":
            raise SandboxRefusal(429, {"message": "API rate limit exceeded", "request_id": "0"})

    @app.after_request
    def _lose(answer: Response) -> Response:
        lost = switches.answers == "lost" and request.method == "POST"
        if lost and not request.path.startswith(("/sandbox", "/pay/")):
            return Response("Internal Server Error", 500)
        return answer


def _install_errors(app: Flask) -> None:
    @app.errorhandler(SandboxRefusal)
    def _refused(error: SandboxRefusal) -> Response:
        answer = jsonify(error.body)
        answer.status_code = error.status
        return answer

    @app.errorhandler(KeyError)
    def _unknown(_error: KeyError) -> Response:
        return _refused(refuse(404, "RESOURCE_NOT_FOUND", "not found"))

    @app.errorhandler(MoneyError)
    @app.errorhandler(ValueError)
    def _invalid(error: Exception) -> Response:
        return _refused(refuse(422, "VALIDATION_FAILED", str(error)))

    @app.errorhandler(HTTPException)
    def _framework(error: HTTPException) -> Response:
        status = error.code or 500
        body = {"message": error.description, "error": error.name, "statusCode": status}
        return _refused(SandboxRefusal(status, body))


def _install_checkout(app: Flask, books: MemoryPayments, webhooks: Webhooks) -> None:
    @app.post("/checkout/payments")
    def _open() -> Response:
        body = request.get_json()
        amount = Money.parse(major(body["amount"]), body["currency"])
        customer = body["customer"]
        try:
            link = books.checkout(body["reference"], amount, customer["email"], customer["name"])
        except PaymentRefused as error:
            raise refuse(409, "DUPLICATE_REFERENCE", str(error)) from None
        return jsonify(status=True, message="Payment created", data={"link": link})

    @app.get("/checkout/payments/merchant-reference/<reference>")
    def _verify(reference: str) -> Response:
        found = books.collection(reference)
        if found is None:
            raise KeyError(reference)
        return jsonify(status=True, message="Payment fetched", data=_collection(books, found))

    @app.route("/pay/<reference>", methods=["GET", "POST"])
    def _pay(reference: str) -> Response | str:
        asked = books.asked(reference)
        if request.method == "GET":
            button = f'<form method="post"><button>Pay {asked}</button></form>'
            return f"<!doctype html><title>Sandbox checkout</title>{button}"
        _paid(books, webhooks, reference, asked)
        return "<!doctype html><title>Paid</title>Paid."

    @app.post("/sandbox/pay")
    def _pay_any() -> Response:
        body = request.get_json()
        reference = body["reference"]
        amount = books.asked(reference) if "amount" not in body else Money.parse(
            major(body["amount"]), body["currency"])  # fmt: skip
        _paid(books, webhooks, reference, amount, round(float(body.get("fee", 0)) * 100))
        return jsonify(_collection(books, cast(Collection, books.collection(reference))))


def _paid(
    books: MemoryPayments, webhooks: Webhooks, reference: str, amount: Money, fee: int = 0
) -> None:
    books.pay(reference, amount, fee)
    found = cast(Collection, books.collection(reference))
    data = {**_collection(books, found), "chargeReference": f"fcr-{reference}"}
    webhooks.notify("charge.successful", data)


def _collection(books: MemoryPayments, found: Collection) -> dict[str, Any]:
    asked = books.asked(found.reference)
    variance = ""
    if found.outcome is PaymentOutcome.SUCCESSFUL and found.received != asked:
        variance = "underpaid" if found.received.minor < asked.minor else "overpaid"
    return {
        "reference": found.reference,
        "status": CHECKOUT_STATUSES[found.outcome],
        "amount": float(asked.major),
        "amountReceived": float(found.received.major),
        "currency": found.received.currency,
        "varianceType": variance or None,
        "feeBearer": "business" if found.fee else "customer",
        "fee": float(found.kept.major),
        "link": found.link,
    }


def _install_accounts(app: Flask, books: MemoryPayments) -> None:
    @app.post("/core/accounts/resolve")
    def _resolve() -> Response:
        body = request.get_json()
        try:
            name = books.payee(body["bankCode"], body["accountNumber"], body["currency"])
        except DomainError as error:
            raise refuse(422, "UNPROCESSABLE_ENTITY", str(error)) from None
        number = body["accountNumber"]
        return jsonify(success=True, message="Account resolved",
                       data={"accountName": name, "accountNumber": number})  # fmt: skip

    @app.get("/wallets")
    def _wallets() -> Response:
        found = [books.balance(currency) for currency in ("NGN", "USD", "GHS", "KES")]
        names = ("ledgerBalance", "availableBalance")
        data = [{"currency": m.currency, **dict.fromkeys(names, float(m.major))} for m in found]
        return jsonify(success=True, message="Wallets fetched", data=data)


def _install_payouts(
    app: Flask, books: MemoryPayments, switches: Switches, webhooks: Webhooks
) -> None:
    @app.post("/disbursements/payouts")
    def _pay_out() -> Response:
        body = request.get_json()
        reference, to = body["customerReference"], body["beneficiary"]
        if books.payout(reference):
            raise refuse(422, DUPLICATE, "Duplicate customer reference")
        amount = Money.parse(major(body["amount"]), body["sourceCurrency"])
        account = Destination(to["bankCode"], to["accountNumber"], to["accountHolderName"])
        books.fee = round(switches.payout_fee * 10**amount.exponent)
        try:
            made = books.pay_out(reference, amount, account)
        except PaymentRefused as error:
            raise refuse(422, "NO_ENOUGH_MONEY_IN_WALLET", str(error)) from None
        if switches.payouts != "waiting":
            _finished(books, webhooks, reference, PaymentOutcome(switches.payouts), "")
        return jsonify(success=True, message="Payout initiated", data=_payout(made))

    @app.get("/disbursements/payouts/customer-reference/<reference>")
    def _read(reference: str) -> Response:
        found = books.payout(reference)
        if found is None:
            raise KeyError(reference)
        return jsonify(success=True, message="Payout fetched", data=_payout(found))


def _finished(
    books: MemoryPayments, webhooks: Webhooks, reference: str, outcome: PaymentOutcome, reason: str
) -> None:
    books.finish(reference, outcome, reason)
    found = cast(Payout, books.payout(reference))
    webhooks.notify(f"payout.{STATUSES[outcome]}", _payout(found))


def _payout(found: Payout) -> dict[str, Any]:
    return {
        "id": f"po-{found.reference}",
        "reference": f"fcr-{found.reference}",
        "customerReference": found.reference,
        "status": STATUSES[found.outcome],
        "amount": float(found.amount.major),
        "amountCharged": float(found.charged.major),
        "fee": float((found.charged - found.amount).major),
        "currency": found.amount.currency,
        "reason": found.reason or None,
    }


def _install_controls(
    app: Flask, books: MemoryPayments, switches: Switches, webhooks: Webhooks
) -> None:
    @app.get("/sandbox")
    def _state() -> Response:
        return jsonify(switches=asdict(switches), held=len(webhooks.held), sent=webhooks.sent)

    @app.post("/sandbox/switches")
    def _turn() -> Response:
        switches.turn(request.get_json())
        return jsonify(asdict(switches))

    @app.post("/sandbox/fund")
    def _fund() -> Response:
        body = request.get_json()
        books.fund(Money.parse(major(body["amount"]), body.get("currency", "NGN")))
        return jsonify(success=True)

    @app.post("/sandbox/expire")
    def _expire() -> Response:
        books.expire(request.get_json()["reference"])
        return jsonify(success=True)

    @app.post("/sandbox/finish")
    def _finish() -> Response:
        body = request.get_json()
        outcome = PaymentOutcome(body["status"])
        _finished(books, webhooks, body["reference"], outcome, body.get("reason", ""))
        return jsonify(success=True)

    @app.post("/sandbox/deliver")
    def _deliver() -> Response:
        backwards = bool(request.get_json(silent=True) or {}) and request.get_json()["backwards"]
        return jsonify(webhooks.deliver(backwards is True))
