"""The rules that decide which backups are pruned. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from deploy.backups.manifest import Backup

if TYPE_CHECKING:
    from deploy.environment.sections import KeepConfig

_BEFORE_CHANGES = ("deploy", "rollback", "migration")


def prunable(
    backups: Sequence[Backup], keep: KeepConfig, releases: Collection[str]
) -> list[Backup]:
    """The backups that no rule keeps, oldest first.

    The rules keep the newest `last`; the newest of each of the last `daily` days, `weekly` weeks
    and `monthly` months (UTC, by the snapshot's time; periods without a backup do not count);
    every backup made before a change of a release in `releases`, which a rollback can reach; and
    the newest that was verified by a restore, at any age.
    """
    newest_first = sorted(backups, key=lambda backup: backup.manifest.taken, reverse=True)
    kept = {backup.manifest.id for backup in newest_first[: keep.last]}
    periods: tuple[tuple[int, str], ...] = (
        (keep.daily, "%Y-%m-%d"),
        (keep.weekly, "%G-W%V"),
        (keep.monthly, "%Y-%m"),
    )
    for count, form in periods:
        kept |= _newest_of_each(newest_first, count, form)
    kept |= {
        backup.manifest.id
        for backup in newest_first
        if backup.manifest.reason in _BEFORE_CHANGES and backup.manifest.release in releases
    }
    verified = (backup.manifest.id for backup in newest_first if backup.restorable)
    kept |= {next(verified, "")}
    return [backup for backup in reversed(newest_first) if backup.manifest.id not in kept]


def _newest_of_each(newest_first: Sequence[Backup], count: int, form: str) -> set[str]:
    found: dict[str, str] = {}
    for backup in newest_first:
        period = time.strftime(form, time.gmtime(backup.manifest.taken))
        found.setdefault(period, backup.manifest.id)
    return set(list(found.values())[:count])
