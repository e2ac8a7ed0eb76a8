"""The retention rules of backups."""

from __future__ import annotations

import calendar

from deploy.backups.manifest import Backup, BackupManifest, Verification
from deploy.backups.retention import prunable
from deploy.environment.sections import KeepConfig

NOON = calendar.timegm((2026, 11, 24, 12, 0, 0))
DAY = 86_400


def backup(
    days: float, *, reason: str = "asked", release: str = "1.0.0", level: str = ""
) -> Backup:
    manifest = BackupManifest(
        id=f"{days:g}",
        environment="trial",
        taken=NOON - days * DAY,
        reason=reason,
        release=release,
        revision="0001",
        host="here",
        database="amani",
        database_size=1,
        size=1,
        sha256="",
        recipients=(),
        versions={},
        tables={},
        dump_seconds=0,
        seconds=0,
    )
    return Backup(manifest, Verification(level, NOON) if level else None)  # type: ignore[arg-type]


def keep(**counts: int) -> KeepConfig:
    return KeepConfig.model_construct(**{"last": 1, "daily": 0, "weekly": 0, "monthly": 0} | counts)


def gone(backups: list[Backup], rule: KeepConfig, releases: tuple[str, ...] = ()) -> list[str]:
    return [found.manifest.id for found in prunable(backups, rule, releases)]


def test_the_newest_stay_in_any_order_of_the_list():
    assert gone([backup(3), backup(1), backup(2)], keep(last=2)) == ["3"]


def test_newest_backup_of_each_recent_day_is_kept():
    backups = [backup(days) for days in (0, 0.25, 1, 1.25, 2, 2.25)]
    assert gone(backups, keep(daily=2)) == ["2.25", "2", "1.25", "0.25"]


def test_day_without_backup_does_not_count():
    assert gone([backup(0), backup(30), backup(60)], keep(daily=2)) == ["60"]


def test_newest_backup_of_each_week_and_month_is_kept():
    backups = [backup(days) for days in range(70)]
    left = {b.manifest.id for b in backups} - set(gone(backups, keep(weekly=3, monthly=3)))
    # 24 November is a Tuesday: Sundays lie 2 and 9 days back, ends of months 24 and 55.
    assert left == {"0", "2", "9", "24", "55"}


def test_a_backup_that_a_rollback_needs_stays():
    before = backup(9, reason="deploy", release="0.9.0")
    assert gone([before, backup(0)], keep(), ("1.0.0", "0.9.0")) == []
    assert gone([before, backup(0)], keep(), ("1.0.0",)) == ["9"]


def test_the_newest_verified_backup_stays_at_any_age():
    backups = [backup(0), backup(400, level="restored"), backup(500, level="booted")]
    assert gone(backups, keep()) == ["500"]
    assert gone([backup(0), backup(400, level="read")], keep()) == ["400"]


def test_without_a_backup_none_is_pruned():
    assert gone([], keep()) == []
