"""Deployers that are killed during a schema change, and hosts that become unreachable then."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from tests.support.revisions import head
from tests.support.waiting import eventually

from .operator import Operator, Outcome, waits_for_migration
from .traffic import Writer, traffic

THIRD, FOURTH = ("deploy", "--version=3.0.0"), ("deploy", "--version=4.0.0")
BACK = ("rollback", "--version=3.0.0", "--auto-confirm", "--with-downgrade")
USED, SCRATCH = "SELECT count(*) FROM users", "LOCK TABLE scratch"
DUMPS = "application_name = 'amani-backup' AND query LIKE 'LOCK TABLE%'"
MIGRATES = "application_name = 'amani-migrate' AND query LIKE 'ALTER TABLE%'"


def make_scratch(operator: Operator) -> None:
    """Create a table that backups dump, and that the service does not use."""
    with psycopg.connect(operator.fleet.database_url) as connection:
        connection.execute("CREATE UNLOGGED TABLE scratch (id int)")


@contextmanager
def held(operator: Operator, lock: str, waiting: str) -> Iterator[Callable[[], None]]:
    """Hold a lock in the block; the yielded function waits until a session waits for the lock.

    `lock` is the statement that takes it, `waiting` the condition for the waiting session.
    """
    with psycopg.connect(operator.fleet.database_url, autocommit=True) as look:
        with psycopg.connect(operator.fleet.database_url) as report:
            report.execute(lock.encode())
            query = f"SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND {waiting}"
            yield lambda: eventually(lambda: look.execute(query.encode()).fetchone() is not None)
            report.rollback()


def test_the_next_run_completes_a_dump_migration_or_downgrade_that_was_killed(
    operator: Operator, changing_releases: None
) -> None:
    operator.fleet.up(3, web=[1], workers=())
    operator.change(timeouts={"drain": "10s", "connect": "5s"})
    operator.deploy("1.0.0")

    def kill_in(waiting: Callable[[], None], task: str, *options: str) -> None:
        command = operator.start(task, *options)
        waiting()
        command.signal(signal.SIGKILL)
        assert command.end().status == -signal.SIGKILL

    def kill_and_follow(follow: tuple[str, ...], task: str, *options: str) -> Outcome:
        """Kill a run whose migration waits for a lock; start another run while it waits."""
        with held(operator, USED, MIGRATES) as waiting:
            kill_in(waiting, task, *options)
            assert len(operator.migrations()) == 1
            command = operator.start(*follow)
            command.until(waits_for_migration)
        outcome = command.end()
        assert operator.migrations() == []
        return outcome

    domain = operator.environment.domain
    writer = Writer(operator.fleet.host(1).address, domain, pause=0.6)
    with writer, traffic(operator.addresses(), domain) as seen:
        make_scratch(operator)
        with held(operator, SCRATCH, DUMPS) as waiting:
            kill_in(waiting, *THIRD)
        assert operator.revision == head()

        done = kill_and_follow(THIRD, *THIRD)
        assert done.status == 0 and "migrate" not in done.kinds, done.errors
        assert (operator.revision, operator.find_deviations("3.0.0")) == ("a001", [])

        # The killed run must not drop the column once the other run has decided to roll back.
        done = kill_and_follow(BACK[:3], *FOURTH)
        refused = "a002 (contract) removed what it uses"
        assert done.status == 3 and refused in done.errors, done.errors
        assert operator.revision == "a002"
        operator.deploy("4.0.0")
        assert operator.find_deviations("4.0.0") == []

        done = kill_and_follow(BACK, *BACK)
        assert done.status == 0 and "downgrade" not in done.kinds, done.errors
        assert (operator.revision, operator.find_deviations("3.0.0")) == ("a001", [])
    assert seen.failures == {}, seen.requests
    assert set(writer.statuses) == {201}, writer.statuses
    assert writer.lost() == []


REVERTED = "a host is unreachable; the other hosts were reverted"
LIVE = "4.0.0 is live and verified, but later steps failed"


@dataclass(frozen=True)
class Cut:
    """A host that is cut off while its command waits for the lock `held`, which is then released.

    `serves` is the version on the other host afterwards, `reached` the possible revisions.
    """

    command: tuple[str, ...]
    says: str
    serves: str
    reached: set[str]
    held: tuple[str, str] = (USED, MIGRATES)
    power: bool = False
    """Whether the host loses its power, too."""


CUTS = (
    Cut(THIRD, REVERTED, "1.0.0", {head()}, (SCRATCH, DUMPS)),
    Cut(THIRD, REVERTED, "1.0.0", {head(), "a001"}, power=True),
    Cut(FOURTH, LIVE, "4.0.0", {"a001", "a002"}),
    Cut(BACK, REVERTED, "4.0.0", {"a002", "a001"}),
)


def test_a_host_cut_off_during_a_schema_change_does_not_affect_the_other_host(
    operator: Operator, changing_releases: None
) -> None:
    """The lost session may hold a lock on a table until the server detects the loss."""
    operator.fleet.up(3, web=[1, 2], workers=())
    operator.change(timeouts={"drain": "10s", "connect": "5s"})
    operator.deploy("1.0.0")
    make_scratch(operator)
    host, others = operator.fleet.host(1), operator.addresses("host1")
    domain = operator.environment.domain
    writer = Writer(others["host2"], domain, pause=0.6)
    with writer, traffic(others, domain) as seen:
        for cut in CUTS:
            with held(operator, *cut.held) as waiting:
                command = operator.start(*cut.command)
                waiting()
                host.cut()
                if cut.power:
                    host.kill()
            outcome = command.end()
            assert outcome.status == 7, (cut, outcome.errors)
            assert cut.says in outcome.errors and "Traceback" not in outcome.errors, outcome.errors
            assert "host1: it was silent for 15 s" in outcome.errors
            assert operator.versions("host2") == {"host2": cut.serves}
            assert operator.revision in cut.reached
            host.heal()
            if cut.command is not CUTS[0].command or cut.power:
                done = operator.run(*cut.command)
                assert done.status == 0, (cut, done.errors)
                assert operator.find_deviations(cut.command[1].partition("=")[2]) == []
    assert seen.failures == {}, seen.requests
    assert set(writer.statuses) == {201}, writer.statuses
    assert writer.lost() == []
