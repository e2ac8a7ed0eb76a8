"""The registry of payment providers."""

from __future__ import annotations

from collections.abc import Mapping

from amani_app.adapters.fincra.settings import FincraSettings
from amani_app.adapters.manual.settings import ManualSettings
from amani_app.adapters.provider import ProviderSettings
from amani_app.settings import SettingsError, read_settings

PROVIDERS: Mapping[str, type[ProviderSettings]] = {
    "fincra": FincraSettings,
    "manual": ManualSettings,
}
"""The value of `PAYMENT_PROVIDER`, and the settings that build the adapter.

The name is also the last part of the webhook's path: `/api/v1/webhooks/fincra`.
"""

NONE = "none"
"""The value of `PAYMENT_PROVIDER` that switches deposits and withdrawals off."""


def select_provider(name: str) -> tuple[str, ProviderSettings] | None:
    """The provider `name`; if it is empty, the first one that is configured, or `None`.

    Raises `SettingsError` if there is no such provider, or if its settings are incomplete.
    """
    if name == NONE:
        return None
    if not name:
        found = ((each, read_settings(kind)) for each, kind in PROVIDERS.items())
        return next((pair for pair in found if pair[1].configured), None)
    if name not in PROVIDERS:
        allowed = ", ".join([*PROVIDERS, NONE])
        raise SettingsError(f"PAYMENT_PROVIDER: {name!r} is not one of {allowed}")
    settings = read_settings(PROVIDERS[name])
    if not settings.configured:
        raise SettingsError(f"{settings.key_setting}: required if PAYMENT_PROVIDER={name}")
    return name, settings
