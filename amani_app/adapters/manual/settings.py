"""The settings of bank transfer by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from pathlib import Path

from pydantic import SecretStr

from amani_app.adapters.provider import ProviderSettings

if TYPE_CHECKING:
    from click import Command

    from amani_app.adapters.manual.payments import ManualPayments
    from amani_app.adapters.manual.records import TransferRecords


class ManualSettings(ProviderSettings):
    manual_payto: str = ""
    """The account that receives deposits (RFC 8905), such as `payto://iban/DE7512108001`."""
    manual_webhook_secret: SecretStr = SecretStr("")
    """At least 32 characters; signs the notices that `flask amani bank` sends."""
    manual_records_url: SecretStr = SecretStr("")
    """SQLite or PostgreSQL URL of the operator's records, by default a file in `data_dir`.

    All processes must reach it: on more than one host use PostgreSQL, in a database of its own.
    """
    data_dir: Path = Path(".amani/data")

    @property
    def configured(self) -> bool:
        """Whether there is an account for deposits; `errors` demands the rest."""
        return bool(self.manual_payto)

    @property
    def key_setting(self) -> str:
        return "MANUAL_PAYTO"

    def errors(self) -> Iterator[str]:
        """An account in another form, and a missing or short secret."""
        if self.manual_payto and not re.fullmatch(
            r"payto://[a-z0-9.-]+/[A-Za-z0-9/._~%-]+", self.manual_payto
        ):
            yield "MANUAL_PAYTO: must be like payto://iban/DE75512108001245126199"
        secret = self.manual_webhook_secret.get_secret_value()
        if (self.manual_payto or secret) and len(secret) < 32:
            yield "MANUAL_WEBHOOK_SECRET: shorter than 32 characters; try `openssl rand -hex 32`"

    @property
    def records_url(self) -> str:
        """The URL of the records, with the driver; it may hold a password."""
        url = self.manual_records_url.get_secret_value()
        url = re.sub(r"^postgresql://", "postgresql+psycopg://", url)
        return url or f"sqlite:///{self.data_dir.absolute()}/manual-transfers.sqlite3"

    def records(self) -> TransferRecords:
        from amani_app.adapters.manual.records import TransferRecords

        return TransferRecords(self.records_url)

    def payments(self) -> ManualPayments:
        from amani_app.adapters.manual.payments import ManualPayments

        secret = self.manual_webhook_secret.get_secret_value()
        return ManualPayments(self.records(), self.manual_payto, secret)

    def commands(self) -> Sequence[Command]:
        from amani_app.adapters.manual.commands import make_bank_group

        records = self.records if self.configured else None
        return (make_bank_group(records, self.manual_webhook_secret.get_secret_value()),)
