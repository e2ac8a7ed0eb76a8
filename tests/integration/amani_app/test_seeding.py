"""`flask amani seed`: data for development, made through the use cases."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import create_engine, text

from amani_app import create_app
from amani_app.commands import install_commands
from amani_app.settings import Settings
from tests.support.service_fixtures import SECRET_KEY, Shell

PASSWORD = "correct horse battery"


def test_every_kind_of_agreement_is_made_and_the_books_are_right(database_url: str) -> None:
    shell = Shell(DATABASE_URL=database_url, SECRET_KEY=SECRET_KEY, AMANI_PASSWORD=PASSWORD)
    shell.ok("flask", "db", "upgrade")

    told = shell.ok("flask", "amani", "seed", "--users=4", "--escrows=40", "--random=1")

    assert "4 users, 40 escrows" in told and "arbiter " in told
    shell.ok("flask", "amani", "reconcile")
    engine = create_engine(database_url)
    with engine.connect() as connection:
        states = set(connection.scalars(text("SELECT DISTINCT state FROM escrows")))
        works = set(connection.scalars(text("SELECT DISTINCT state FROM milestones")))
    engine.dispose()
    assert states >= {"draft", "accepted", "funded", "cancelled"}
    assert works >= {"submitted", "released", "disputed"}


def refusal(app: Flask, password: str) -> str:
    """What `flask amani seed` says where it refuses."""
    install_commands(app)  # a server has none
    refused = app.test_cli_runner().invoke(args=["amani", "seed"], env={"AMANI_PASSWORD": password})
    assert refused.exit_code == 2
    return refused.output


def test_a_short_password_is_refused(app: Flask) -> None:
    assert "10 characters" in refusal(app, "short")


def test_production_is_refused(settings: Settings) -> None:
    live = create_app(settings.model_copy(update={"environment": "production"}))
    assert "seeding is refused if ENVIRONMENT=production" in refusal(live, PASSWORD)
    live.extensions["amani"].engine.dispose()
