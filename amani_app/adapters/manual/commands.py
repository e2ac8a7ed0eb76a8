"""`flask amani bank`: the operator's side of bank transfer by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from dataclasses import dataclass

import click

if TYPE_CHECKING:
    from amani_app.adapters.manual.records import TransferRecords

_notify = click.option(
    "--notify",
    "url",
    envvar="MANUAL_NOTIFY_URL",
    default="",
    help="Webhook that is notified at once, such as https://HOST/api/v1/webhooks/manual; without "
    "it the worker finds the change within ten minutes.",
)


@dataclass(frozen=True)
class BankAccess:
    records: TransferRecords
    secret: str

    def send(self, url: str, event: str, reference: str, line: str = "") -> None:
        """Send a signed notice, so that the service queries the records at once."""
        if not url:
            click.echo("recorded; the worker finds it within ten minutes")
            return
        import requests

        from amani_app.adapters.manual.payments import sign

        body = {"event": event, "data": {"reference": reference, "line": line}}
        raw = json.dumps(body).encode()
        headers = {"content-type": "application/json", "signature": sign(self.secret, raw)}
        try:
            status = requests.post(url, data=raw, headers=headers, timeout=10).status_code
        except requests.RequestException as error:
            message = f"recorded, but {url} did not answer ({type(error).__name__})"
            raise click.ClickException(message) from None
        if status != 200:
            raise click.ClickException(f"recorded, but {url} answered {status}")
        click.echo("recorded and notified")


def make_bank_group(records: Callable[[], TransferRecords] | None, secret: str) -> click.Group:
    """The group on `records`; `None` if the provider is not configured."""

    @click.group("bank", commands=[_waiting, _received, _sent, _failed])
    @click.pass_context
    def bank(context: click.Context) -> None:
        """Bank transfer by hand: list what waits, and confirm what the statement shows."""
        if records is None:
            raise click.UsageError("MANUAL_PAYTO must be set")
        context.obj = BankAccess(records(), secret)

    return bank


@click.command("waiting")
@click.pass_obj
def _waiting(bank: BankAccess) -> None:
    """Print each open deposit and payout: reference, amount, destination."""
    for each in bank.records.waiting():
        columns = ["payout" if each.to else "deposit", each.reference, str(each.amount)]
        if each.to:
            columns += [each.to.bank_code, each.to.account_number, each.to.account_name]
        click.echo("  ".join(columns))


@click.command("received")
@click.argument("reference")
@click.argument("amount")
@click.option("--currency", default="NGN", show_default=True)
@click.option("--line", required=True, help="The statement's id of the transfer; used once.")
@_notify
@click.pass_obj
def _received(
    bank: BankAccess, reference: str, amount: str, currency: str, line: str, url: str
) -> None:
    """Confirm that AMOUNT (major units) arrived with REFERENCE."""
    from amani_app.adapters.manual.payments import LINE, REFERENCE
    from amani_app.domain.money import Money

    if not REFERENCE.fullmatch(reference) or not line or not LINE.fullmatch(line):
        raise click.UsageError("REFERENCE and --line take letters, digits and . _ - only")
    try:
        money = Money.parse(amount, currency)
        if money.minor <= 0:
            raise ValueError(f"{money} is not a positive amount")
        bank.records.receive(line, reference, money)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    bank.send(url, "deposit.received", reference, line)


@click.command("sent")
@click.argument("reference")
@click.option("--fee", default=0, show_default=True, type=click.IntRange(min=0),
              help="The bank's fee in minor units, beside the amount.")  # fmt: skip
@_notify
@click.pass_obj
def _sent(bank: BankAccess, reference: str, fee: int, url: str) -> None:
    """Confirm that the payout REFERENCE was sent."""
    from amani_app.ports.payments import PaymentOutcome

    found = bank.records.get(reference)
    if found is None or found.kind != "out":
        raise click.ClickException(f"there is no payout {reference}")
    bank.records.finish(reference, PaymentOutcome.SUCCESSFUL, fee)
    bank.send(url, "payout.sent", reference)


@click.command("failed")
@click.argument("reference")
@click.option("--reason", default="", help="Shown to the owner of a withdrawal.")
@_notify
@click.pass_obj
def _failed(bank: BankAccess, reference: str, reason: str, url: str) -> None:
    """Record that the payout REFERENCE failed, or that its deposit never arrives."""
    from amani_app.ports.payments import PaymentOutcome

    found = bank.records.get(reference)
    if found is None:
        raise click.ClickException(f"there is no deposit or payout {reference}")
    if found.kind == "in" and bank.records.received(reference):
        raise click.ClickException(f"money has arrived for the deposit {reference}")
    bank.records.finish(reference, PaymentOutcome.FAILED, 0, reason)
    bank.send(url, "payout.failed" if found.kind == "out" else "deposit.failed", reference)
