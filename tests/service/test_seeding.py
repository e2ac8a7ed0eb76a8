"""`flask amani seed`: data for development, made through the use cases."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from tests.service.conftest import SECRET_KEY, Shell

PASSWORD = "correct horse battery"


def operator(database_url: str, **environ: str) -> Shell:
    """Somebody on a migrated database."""
    keys = {"SECRET_KEY": SECRET_KEY, "AMANI_PASSWORD": PASSWORD}
    made = Shell(**{"DATABASE_URL": database_url, **keys, **environ})
    made.ok("flask", "db", "upgrade")
    return made


def test_every_kind_of_agreement_is_made_and_the_books_are_right(database_url: str) -> None:
    shell = operator(database_url)

    told = shell.ok("flask", "amani", "seed", "--users=4", "--escrows=40", "--random=1")

    assert "4 people, 40 agreements" in told and "arbiter " in told
    shell.ok("flask", "amani", "reconcile")
    engine = create_engine(database_url)
    with engine.connect() as connection:
        states = set(connection.scalars(text("SELECT DISTINCT state FROM escrows")))
        works = set(connection.scalars(text("SELECT DISTINCT state FROM milestones")))
    engine.dispose()
    assert states >= {"draft", "accepted", "funded", "cancelled"}
    assert works >= {"submitted", "released", "disputed"}


def test_production_and_short_passwords_are_refused(sqlite_url: str) -> None:
    refused = operator(sqlite_url, AMANI_PASSWORD="short").run("flask", "amani", "seed")
    assert refused.returncode == 2 and "10 characters" in refused.stderr
    refused = operator(sqlite_url, ENVIRONMENT="production").run("flask", "amani", "seed")
    assert refused.returncode == 2 and "production is not seeded" in refused.stderr
