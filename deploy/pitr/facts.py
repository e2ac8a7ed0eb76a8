"""The facts about a machine's PostgreSQL clusters, their archiving, and the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.pitr.recovery_target import PastRecovery, RecoveryWindow, parse_past_recoveries

PAST_RECOVERIES = "amani-departures"
"""The annotation of base backups with the past recoveries, so that the repository has them if the
machine is lost."""


@dataclass(frozen=True)
class Cluster:
    """A cluster as Debian's `pg_lsclusters` lists it."""

    version: str
    name: str
    port: int
    running: bool
    data: str
    config: str
    socket: str
    log: str
    note: Mapping[str, Any] = field(default_factory=dict)
    """The content of `configuration.NOTE` in its folder; empty without one."""

    @property
    def label(self) -> str:
        """Version and name, such as `17/main`."""
        return f"{self.version}/{self.name}"


@dataclass(frozen=True)
class Setting:
    """A setting that the server uses, and the file that it comes from."""

    value: str
    file: str = ""


@dataclass(frozen=True)
class Archiving:
    """The server's settings and statistics of archiving.

    Times are in seconds since the epoch; 0 means never.
    """

    settings: Mapping[str, Setting]
    now: float
    recovery: bool
    archived: int
    last: str
    last_at: float
    failed: int
    failed_last: str
    failed_at: float
    written: float
    """The time up to which all transactions are in the archive."""
    waiting: int = 0
    """Full segments that are not archived yet."""
    waiting_seconds: float = 0.0
    """The age of the oldest of them."""
    databases: tuple[str, ...] = ()

    @property
    def on(self) -> bool:
        return self.value("archive_mode") in ("on", "always")

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to archive a segment failed."""
        return self.failed_at > self.last_at

    def value(self, name: str) -> str:
        """The value of a setting; empty if it is not visible."""
        return self.settings[name].value if name in self.settings else ""


@dataclass(frozen=True)
class BaseBackup:
    """A base backup in the repository: times in seconds since the epoch, sizes in bytes."""

    label: str
    kind: str
    started: float
    stopped: float
    size: int
    stored: int
    sound: bool = True
    past_recoveries: tuple[PastRecovery, ...] = ()

    @property
    def sizes(self) -> str:
        """Its size and its size in the repository, for people."""
        return f"{self.size / 1e6:,.1f} MB, stored {self.stored / 1e6:,.1f} MB"


@dataclass(frozen=True)
class Repository:
    """The repository's state as pgBackRest reports it."""

    stanza: bool = False
    bases: tuple[BaseBackup, ...] = ()
    problem: str = ""
    """Why nothing can be restored from it; empty if something can."""
    wal: str = ""
    """The newest segment in it."""


@dataclass(frozen=True)
class ClusterFacts:
    """The facts about one machine and its repository."""

    tool: str
    """pgBackRest's version; empty if it is not installed."""
    clusters: tuple[Cluster, ...]
    port: int
    """The port of the live cluster, from the database's URL."""
    now: float
    """The machine's clock."""
    archiving: Archiving | None
    """None if the live cluster does not answer."""
    repository: Repository
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Contents of the files on the machine that a plan compares, by path."""

    @property
    def live(self) -> Cluster | None:
        """The cluster on the database's port; of several, the running one."""
        found = [one for one in self.clusters if one.port == self.port]
        return next((one for one in found if one.running), found[0] if found else None)

    @property
    def past_recoveries(self) -> tuple[PastRecovery, ...]:
        """The past recoveries of the live database, oldest target first."""
        note = str(self.live.note.get("departures", "")) if self.live else ""
        found = set(parse_past_recoveries(note))
        return tuple(sorted(found.union(*(b.past_recoveries for b in self.repository.bases))))

    @property
    def window(self) -> RecoveryWindow | None:
        """The points in time that can be recovered; None without an undamaged base backup."""
        whole = [base for base in self.repository.bases if base.sound]
        if not whole:
            return None
        # pgBackRest reports the end of a backup in whole seconds.
        return RecoveryWindow(whole[0].stopped + 1, self._newest())

    def _newest(self) -> float | None:
        found = self.archiving
        if found is None or not found.on:
            return None
        return found.written if found.failing else found.now


def parse_clusters(text: str, notes: Mapping[str, str]) -> tuple[Cluster, ...]:
    """Parse the output of `pg_lsclusters --json`; `notes` by folder of configuration."""
    return tuple(
        Cluster(
            version=str(found["version"]),
            name=found["cluster"],
            port=int(found["port"]),
            running=bool(int(found["running"])),
            data=found["pgdata"],
            config=found["configdir"],
            socket=found.get("socketdir") or "/var/run/postgresql",
            log=found.get("logfile") or "",
            note=_note(notes.get(found["configdir"], "")),
        )
        for found in json.loads(text or "[]")
    )


def _note(text: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(text)) if text else {}
    except (ValueError, TypeError):
        return {}


def parse_archiving(result: Mapping[str, Any]) -> Archiving:
    """Parse the result of `queries.ARCHIVING`, or of `queries.VISIBLE`."""
    archiver, waiting = result["archiver"], result.get("waiting") or {}
    settings = {
        name: Setting(found["value"] or "", found["file"] or "")
        for name, found in (result["settings"] or {}).items()
    }
    return Archiving(
        settings=settings,
        now=result["now"],
        recovery=result["recovery"],
        archived=archiver["archived"],
        last=archiver["last"] or "",
        last_at=archiver["last_at"] or 0.0,
        failed=archiver["failed"],
        failed_last=archiver["failed_last"] or "",
        failed_at=archiver["failed_at"] or 0.0,
        written=result.get("written") or archiver["last_at"] or 0.0,
        waiting=waiting.get("count", 0),
        waiting_seconds=waiting.get("seconds", 0.0),
        databases=tuple(result.get("databases") or ()),
    )


def parse_repository(text: str) -> Repository:
    """Parse the output of `pgbackrest info --output=json` for one stanza."""
    stanzas: Sequence[Mapping[str, Any]] = json.loads(text or "[]")
    if not stanzas:
        return Repository()
    stanza = stanzas[0]
    bases = tuple(
        BaseBackup(
            label=one["label"],
            kind=one["type"],
            started=one["timestamp"]["start"],
            stopped=one["timestamp"]["stop"],
            size=one["info"]["size"],
            # With blocks and bundles it reports no size of the whole backup.
            stored=one["info"]["repository"]["delta"],
            sound=not one.get("error"),
            past_recoveries=parse_past_recoveries(
                (one.get("annotation") or {}).get(PAST_RECOVERIES, "")
            ),
        )
        for one in stanza.get("backup") or ()
    )
    status = stanza["status"]
    archive = stanza.get("archive") or [{}]
    return Repository(
        # 1: no stanza; 2: a stanza without a backup.
        stanza=bool(stanza.get("db")) and status["code"] in (0, 2),
        bases=bases,
        problem="" if status["code"] == 0 else _problem(stanza),
        wal=archive[-1].get("max") or "",
    )


def _problem(stanza: Mapping[str, Any]) -> str:
    messages = [
        one["status"]["message"] for one in stanza.get("repo") or () if one["status"]["code"]
    ]
    return "; ".join(messages) or str(stanza["status"]["message"])
