"""The contract of `flask amani seed`."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from tests.support.service_fixtures import SECRET_KEY, Shell

PASSWORD = "correct horse battery"


def test_seed_creates_agreements_in_all_states_and_balanced_books(database_url: str) -> None:
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
