"""A backup as it is written down: what it holds, how it was made, how far it was proved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

Level = Literal["hash", "read", "restored", "booted"]
LEVELS: tuple[Level, ...] = ("hash", "read", "restored", "booted")
"""How far a backup can be proved, each level with all before it."""


@dataclass(frozen=True)
class Manifest:
    """What lies beside every archive. Times are seconds since the epoch; sizes are bytes."""

    id: str
    environment: str
    taken: float
    """When the snapshot was taken that the archive holds."""
    reason: str
    """`asked`, `deploy`, `rollback`, `migration`, `restore` or `drill`."""
    release: str
    """The version that served then; empty where none did."""
    revision: str
    """The schema's revision, in the snapshot."""
    host: str
    database: str
    database_size: int
    size: int
    sha256: str
    """Of the archive as it lies there, compressed and encrypted."""
    recipients: tuple[str, ...]
    """Public keys that it is encrypted for; empty: it is not."""
    versions: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]]
    """By table its `rows`, and the `sums` of every column of numbers, in the snapshot."""
    dump_seconds: float
    seconds: float
    format: str = "custom"
    """What the archive holds: a dump of PostgreSQL as `custom` or, by several jobs, as `directory`;
    the `file` of SQLite. Manifests that do not tell are of before there was another."""
    jobs: int = 1
    """How many dumped at once."""
    unpacked: int = 0
    """Bytes that a directory needs on the disk while it is read or restored."""

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Raises ValueError where the text is no manifest."""
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
        """Whether a private key is needed to open it."""
        return bool(self.recipients)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(int(table["rows"]) for table in self.tables.values())

    def differences(self, found: Mapping[str, Any]) -> list[str]:
        """In words, what a restored database's measures and revision have otherwise."""
        lines = []
        if found["revision"] != self.revision:
            lines.append(f"the revision is {found['revision']!r} and not {self.revision!r}")
        for name in sorted({*self.tables, *found["tables"]}):
            expected, got = self.tables.get(name), found["tables"].get(name)
            if expected is None or got is None:
                lines.append(f"table {name} is {'not expected' if got else 'missing'}")
                continue
            if got["rows"] != expected["rows"]:
                lines.append(f"{name} has {got['rows']} rows and not {expected['rows']}")
            for column, total in expected["sums"].items():
                if got["sums"].get(column) != total:
                    lines.append(
                        f"the sum of {name}.{column} is {got['sums'].get(column)}, not {total}"
                    )
        return lines


@dataclass(frozen=True)
class Proof:
    """The highest level that a backup reached, when, and how long that took."""

    level: Level
    at: float
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Proof | None:
        """None where there is none, or what is there is torn."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Backup:
    """A backup in the catalogue."""

    manifest: Manifest
    proof: Proof | None = None

    @property
    def restorable(self) -> bool:
        """Whether it was proved by a restore."""
        return self.proof is not None and self.proof.level in ("restored", "booted")
