"""Amani: the escrow service. `create_app` is its only entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from amani_app.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application from `settings`, by default those of the environment.

    Raises `SettingsError` if the environment does not hold valid settings. The first use of the
    database opens the first connection.
    """
    # Imported here so that `python -m amani_app.healthcheck` loads neither Flask nor SQLAlchemy.
    from amani_app.factory import build_app

    return build_app(settings)
