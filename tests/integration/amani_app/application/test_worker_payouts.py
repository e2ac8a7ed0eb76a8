"""Several real workers, stopped and killed during payouts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from amani_app.adapters.database.store import DatabaseStore
from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.container import new_id, utc_now
from amani_app.domain.ledger import Account, AccountKind
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.domain.users import Role, User
from amani_app.ports.payments import PaymentOutcome
from tests.support.sandboxes import API_KEY, WEBHOOK_SECRET, Sandbox
from tests.support.service_fixtures import Shell
from tests.support.waiting import eventually

COUNT = 40
EACH = 100


@pytest.fixture(
    params=["sqlite_engine", pytest.param("postgres_engine", marks=pytest.mark.postgres)]
)
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def shell(engine: Engine, sandbox: Sandbox, tmp_path: Path) -> Shell:
    return Shell(
        DATABASE_URL=engine.url.render_as_string(hide_password=False),
        FINCRA_URL=sandbox.url,
        FINCRA_SECRET_KEY=API_KEY,
        FINCRA_PUBLIC_KEY="public",
        FINCRA_BUSINESS_ID="business",
        FINCRA_WEBHOOK_SECRET=WEBHOOK_SECRET,
        WORKER_INTERVAL="0.1",
        TMPDIR=str(tmp_path),
    )


def request_withdrawals(store: DatabaseStore) -> None:
    """Request `COUNT` withdrawals, which together empty Ada's wallet."""
    context, money = Context(utc_now, new_id), Money(COUNT * EACH, "NGN")
    ada = User("ada", "ada@example.org", "Ada", Role.MEMBER, "hash", utc_now())
    store.run(lambda unit: unit.users.add(ada))
    collected, ask = DepositUseCases(context).collected, WithdrawalUseCases(context).request
    store.run(lambda unit: collected(unit, Actor("test"), "ada", "d1", money, money))
    bank = Destination("044", "0123456789", "Ada Obi")
    for _ in range(COUNT):
        store.run(lambda unit: ask(unit, Actor("ada"), Money(EACH, "NGN"), bank))


@pytest.mark.timeout(300)
def test_stopped_and_killed_workers_pay_each_withdrawal_out_once(
    engine: Engine, shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    store = DatabaseStore(engine, utc_now)
    sandbox.books.fund(Money(COUNT * EACH, "NGN"))
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        log = tmp_path / f"worker-{len(running)}.log"
        running.append(shell.start("flask", "amani", "worker", log=log))
        return running[-1]

    def states() -> dict[str, int]:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT state, count(*) FROM withdrawals GROUP BY 1"))
            return {row[0]: row[1] for row in rows}

    def registered() -> int:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM worker_heartbeats")) or 0

    try:
        stopped, killed = start(), start()
        eventually(lambda: registered() == 2, 60)
        request_withdrawals(store)
        eventually(lambda: states().get("processing", 0) >= 3, 60)
        stopped.terminate()
        killed.kill()
        assert stopped.wait(30) == 0
        killed.wait()
        # At most one is being sent: that of the killed worker, whose lease has not expired.
        assert states().get("sending", 0) <= 1
        expire_leases(engine)
        for _ in range(2):
            start()
        eventually(lambda: states() == {"processing": COUNT}, 60)
        for id in list(sandbox.books.payouts):
            sandbox.books.finish(id, PaymentOutcome.SUCCESSFUL)
        # Expire repeatedly: a worker that polls a pending payout retries only after a minute.
        eventually(lambda: expire_leases(engine) or states() == {"paid": COUNT}, 60)
        for worker in running[2:]:
            worker.terminate()
            assert worker.wait(30) == 0
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
    assert sandbox.books.balance("NGN") == Money(0, "NGN")
    wallet = Account(AccountKind.WALLET, "NGN", "ada")
    assert store.read(lambda unit: unit.ledger.balance(wallet)).posted == Money(0, "NGN")
    assert shell.ok("flask", "amani", "reconcile") == ""


def expire_leases(engine: Engine) -> None:
    """Make the withdrawals and messages that a killed worker has leased due at once."""
    with engine.begin() as connection:
        for table in ("withdrawals", "outbox"):
            past = f"UPDATE {table} SET due_at = '2026-01-01 00:00:00' WHERE due_at IS NOT NULL"
            connection.execute(text(past))
