"""The contract of the register of workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from amani_app.ports.workers import WorkerRegister

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


class TestRegister:
    def test_forget_removes_workers_without_recent_heartbeat(
        self, register: WorkerRegister
    ) -> None:
        register.beat("old", "1.0.0", NOW)
        register.beat("new", "1.0.0", NOW + timedelta(hours=2))
        assert register.forget(NOW + timedelta(hours=1)) == 1
        assert register.forget(NOW + timedelta(hours=1)) == 0

    def test_heartbeat_replaces_previous_one(self, register: WorkerRegister) -> None:
        register.beat("w", "1.0.0", NOW)
        register.beat("w", "1.0.1", NOW + timedelta(hours=2))
        assert register.forget(NOW + timedelta(hours=1)) == 0

    def test_leave_removes_worker_and_may_be_repeated(self, register: WorkerRegister) -> None:
        register.beat("w", "1.0.0", NOW)
        register.leave("w")
        register.leave("w")
        assert register.forget(NOW + timedelta(hours=1)) == 0
