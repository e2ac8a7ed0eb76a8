"""Fincra's settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from amani_app.adapters.provider import ProviderSettings

if TYPE_CHECKING:
    from click import Command

    from amani_app.adapters.fincra.payments import FincraPayments


class FincraSettings(ProviderSettings):
    """`FINCRA_URL` switches the provider on; all other fields are then required."""

    fincra_url: str = ""
    """`https://api.fincra.com`, or `https://sandboxapi.fincra.com`."""
    fincra_secret_key: SecretStr = SecretStr("")
    fincra_public_key: str = ""
    fincra_business_id: str = ""
    fincra_webhook_secret: SecretStr = SecretStr("")
    """The key that signs Fincra's notices."""

    @property
    def configured(self) -> bool:
        """Whether there is a URL; `errors` demands the rest."""
        return bool(self.fincra_url)

    @property
    def key_setting(self) -> str:
        return "FINCRA_URL"

    def errors(self) -> Iterator[str]:
        """Missing keys, values that no HTTP header can hold, and a URL without TLS."""
        needed = {
            "FINCRA_SECRET_KEY": self.fincra_secret_key.get_secret_value(),
            "FINCRA_PUBLIC_KEY": self.fincra_public_key,
            "FINCRA_BUSINESS_ID": self.fincra_business_id,
            "FINCRA_WEBHOOK_SECRET": self.fincra_webhook_secret.get_secret_value(),
        }
        for name, value in needed.items():
            if self.fincra_url and not value:
                yield f"{name}: required if FINCRA_URL is set; set it, or unset FINCRA_URL"
            if value and not (value.isascii() and value.isprintable()):
                yield f"{name}: contains characters that an HTTP header cannot hold"
        plain = self.practice or self.environment == "local"
        schemes = ("https://", "http://") if plain else ("https://",)
        if self.fincra_url and not self.fincra_url.startswith(schemes):
            yield f"FINCRA_URL: must start with {' or '.join(schemes)}"

    def payments(self) -> FincraPayments:
        """The adapter for Fincra's HTTP API; it connects at its first call."""
        from amani_app.adapters.fincra.client import FincraCredentials
        from amani_app.adapters.fincra.payments import FincraPayments

        return FincraPayments(
            FincraCredentials(
                url=self.fincra_url,
                secret_key=self.fincra_secret_key.get_secret_value(),
                public_key=self.fincra_public_key,
                business_id=self.fincra_business_id,
                webhook_secret=self.fincra_webhook_secret.get_secret_value(),
            )
        )

    def commands(self) -> Sequence[Command]:
        from amani_app.adapters.fincra.commands import make_sandbox_command

        secret, key = self.fincra_webhook_secret, self.fincra_secret_key
        keys = secret.get_secret_value(), key.get_secret_value()
        return (make_sandbox_command(*keys, self.environment),)
