"""The base class of each payment provider's settings, which build its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from abc import abstractmethod

from amani_app.settings import EnvironmentSettings

if TYPE_CHECKING:
    from click import Command

    from amani_app.ports.payments import Payments


class ProviderSettings(EnvironmentSettings):
    """The settings of one payment provider.

    To add a provider, write a package with a subclass of this, and name it in `PROVIDERS`.
    """

    @property
    @abstractmethod
    def configured(self) -> bool:
        """Whether enough is set to use the provider."""

    @property
    @abstractmethod
    def key_setting(self) -> str:
        """The variable that switches the provider on, for error messages."""

    @abstractmethod
    def payments(self) -> Payments:
        """The adapter; connects to nothing yet. Call it only if `configured`."""

    def commands(self) -> Sequence[Command]:
        """Commands for `flask amani`; available whether or not the provider is selected."""
        return ()
