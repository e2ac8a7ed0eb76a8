"""`flask amani seed`: data for development."""

from __future__ import annotations

from flask import Flask

from amani_app import create_app
from amani_app.commands import install_commands
from amani_app.settings import Settings
from tests.support.contracts.seeding import *  # noqa: F401,F403
from tests.support.contracts.seeding import PASSWORD


def refusal(app: Flask, password: str) -> str:
    """The output of a rejected `flask amani seed`."""
    install_commands(app)  # a server has none
    refused = app.test_cli_runner().invoke(args=["amani", "seed"], env={"AMANI_PASSWORD": password})
    assert refused.exit_code == 2
    return refused.output


def test_short_password_is_rejected(app: Flask) -> None:
    assert "10 characters" in refusal(app, "short")


def test_production_is_rejected(settings: Settings) -> None:
    live = create_app(settings.model_copy(update={"environment": "production"}))
    assert "seeding is refused if ENVIRONMENT=production" in refusal(live, PASSWORD)
    live.extensions["amani"].engine.dispose()
