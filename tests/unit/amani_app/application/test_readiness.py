from __future__ import annotations

import threading

import pytest

from amani_app.application.common.lifecycle import Lifecycle
from amani_app.application.common.readiness import CheckHealth, CheckReadiness, SchemaState
from amani_app.ports.schema import DatabaseUnavailable

INSUFFICIENT = frozenset({"0001"})


class Schema:
    """A schema source that counts its queries."""

    expected = "0002"
    insufficient = INSUFFICIENT

    def __init__(self, live: str | None = "0002") -> None:
        self.revision = live
        self.away = False
        self.asked = 0

    def live(self) -> str | None:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable
        return self.revision


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def started() -> Lifecycle:
    lifecycle = Lifecycle()
    lifecycle.start()
    return lifecycle


@pytest.mark.parametrize(
    ("live", "behind"),
    [(None, True), ("0001", True), ("0002", False), ("9999-of-a-newer-release", False)],
)
def test_only_an_older_known_revision_is_behind(live: str | None, behind: bool) -> None:
    assert SchemaState.judge(live, "0002", INSUFFICIENT).behind is behind


def test_starting_and_stopping_are_not_ready_without_a_query() -> None:
    schema, lifecycle = Schema(), Lifecycle()
    check = CheckReadiness(lifecycle, schema, cache=1)
    assert (check().ready, check().reason) == (False, "starting")
    lifecycle.start()
    assert check().ready
    lifecycle.stop()
    assert (check().ready, check().reason) == (False, "stopping")
    assert schema.asked == 1


def test_stopped_lifecycle_cannot_restart() -> None:
    lifecycle = Lifecycle()
    lifecycle.stop()
    lifecycle.start()
    assert not CheckReadiness(lifecycle, Schema(), cache=1)().ready


def test_ready_result_is_cached_and_unready_is_not() -> None:
    schema, clock = Schema("0001"), Clock()
    check = CheckReadiness(started(), schema, cache=1, monotonic=clock)
    assert "behind: 0001, need 0002" in check().reason
    schema.revision = "0002"
    assert check().ready
    schema.away = True
    clock.now += 0.9
    assert check().ready
    assert schema.asked == 2
    clock.now += 0.2
    assert check().reason == "the database is unreachable"


def test_only_one_thread_queries_the_database() -> None:
    asked, go_on = threading.Event(), threading.Event()

    class Slow(Schema):
        def live(self) -> str | None:
            asked.set()
            assert go_on.wait(10)
            return "0002"

    check = CheckReadiness(started(), Slow(), cache=1)
    first = threading.Thread(target=check)
    first.start()
    assert asked.wait(10)
    assert not check().ready
    go_on.set()
    first.join()
    assert check().ready


def test_health_reports_live_revision_and_tolerates_absent_database() -> None:
    schema = Schema("0001")
    health = CheckHealth(schema)
    found = health()
    assert not found.passing
    assert found.schema == SchemaState("0001", "0002", behind=True)
    schema.away = True
    assert health().schema is None
    assert not health().passing
