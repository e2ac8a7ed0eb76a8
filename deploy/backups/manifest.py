"""The manifest of a backup, and the highest level of verification that it reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

Level = Literal["hash", "read", "restored", "booted"]
LEVELS: tuple[Level, ...] = ("hash", "read", "restored", "booted")
"""Levels of verification, lowest first; each includes the lower ones."""


@dataclass(frozen=True)
class BackupManifest:
    """The content of `manifest.json`, which each archive has beside it.

    Times are in seconds since the epoch, durations in seconds, sizes in bytes.
    """

    id: str
    environment: str
    taken: float
    """When the snapshot in the archive was taken."""
    reason: str
    """`asked`, `deploy`, `rollback`, `migration`, `restore` or `drill`."""
    release: str
    """The version of the live release at that time; empty if there was none."""
    revision: str
    """The revision of the schema in the snapshot."""
    host: str
    database: str
    database_size: int
    size: int
    sha256: str
    """Of the archive file, which is compressed and may be encrypted."""
    recipients: tuple[str, ...]
    """Public keys that the archive is encrypted for; empty: it is not encrypted."""
    versions: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]]
    """For each table its `rows`, and the `sums` of its numeric columns, in the snapshot."""
    dump_seconds: float
    seconds: float
    format: str = "custom"
    """The format of the archive: a PostgreSQL dump as `custom` or, by several jobs, `directory`; an
    SQLite database as `file`. Older manifests lack the key: `custom` was the only format."""
    jobs: int = 1
    """The number of parallel jobs that made the dump."""
    unpacked: int = 0
    """Bytes on the disk that a restore needs for the files of a `directory` dump."""

    @classmethod
    def parse(cls, text: str) -> BackupManifest:
        """Raises `ValueError` if the text is no manifest."""
        try:
            values = json.loads(text)
            known = {
                field.name: values[field.name]
                for field in fields(cls)
                if field.name in values or field.default is MISSING
            }
            return cls(**known | {"recipients": tuple(known["recipients"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no manifest: {error!r}") from None

    @property
    def encrypted(self) -> bool:
        return bool(self.recipients)

    @property
    def rows(self) -> int:
        return sum(int(table["rows"]) for table in self.tables.values())

    def differences(self, found: Mapping[str, Any]) -> list[str]:
        """The differences between the manifest and a restored database, one line each.

        `found` has the `tables` and the `revision` of that database.
        """
        lines = []
        if found["revision"] != self.revision:
            lines.append(f"the revision is {found['revision']!r}, not {self.revision!r}")
        for name in sorted({*self.tables, *found["tables"]}):
            expected, got = self.tables.get(name), found["tables"].get(name)
            if expected is None or got is None:
                lines.append(f"table {name} is {'not expected' if got else 'missing'}")
                continue
            if got["rows"] != expected["rows"]:
                lines.append(f"{name} has {got['rows']} rows, not {expected['rows']}")
            for column, total in expected["sums"].items():
                if got["sums"].get(column) != total:
                    lines.append(
                        f"the sum of {name}.{column} is {got['sums'].get(column)}, not {total}"
                    )
        return lines


@dataclass(frozen=True)
class Verification:
    """The highest level that a backup reached, when (seconds since the epoch), and the duration."""

    level: Level
    at: float
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Verification | None:
        """The content of `verified.json`; None if the text is empty or damaged."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Backup:
    """A backup in the catalogue; `verification` is None if it was never verified."""

    manifest: BackupManifest
    verification: Verification | None = None

    @property
    def restorable(self) -> bool:
        """Whether the backup was verified by a restore."""
        return self.verification is not None and self.verification.level in ("restored", "booted")
