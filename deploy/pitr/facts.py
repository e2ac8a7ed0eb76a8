"""What is: PostgreSQL's clusters on a machine, its archiving, and what the repository holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.pitr.moment import Departure, Window, parse_departures

DEPARTURES = "amani-departures"
"""The annotation of base backups that tells when the live database was taken back: it outlives the
machine."""


@dataclass(frozen=True)
class Cluster:
    """A cluster as Debian's `pg_lsclusters` tells it; `note` is what a restore wrote down."""

    version: str
    name: str
    port: int
    running: bool
    data: str
    config: str
    socket: str
    log: str
    note: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.version}/{self.name}"


@dataclass(frozen=True)
class Setting:
    """A setting as the server goes by it, and the file that it has it from."""

    value: str
    file: str = ""


@dataclass(frozen=True)
class Archiving:
    """What the server says of its archiving. Times in seconds since the epoch, 0: never."""

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
    """Until when everything that was written is in the archive."""
    waiting: int = 0
    """Segments that are full and not yet archived."""
    waiting_seconds: float = 0.0
    """How long the oldest of them has been waiting."""
    databases: tuple[str, ...] = ()

    @property
    def on(self) -> bool:
        """Whether the server archives at all."""
        return self.value("archive_mode") in ("on", "always")

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to archive a segment failed."""
        return self.failed_at > self.last_at

    def value(self, name: str) -> str:
        """What a setting is; empty where it cannot be seen."""
        return self.settings[name].value if name in self.settings else ""


@dataclass(frozen=True)
class Base:
    """A base backup in the repository: times in seconds since the epoch, sizes in bytes."""

    label: str
    kind: str
    started: float
    stopped: float
    size: int
    stored: int
    sound: bool = True
    departures: tuple[Departure, ...] = ()


@dataclass(frozen=True)
class Repository:
    """What pgBackRest says of its repository; `problem` is why it holds nothing to restore."""

    stanza: bool = False
    bases: tuple[Base, ...] = ()
    problem: str = ""
    wal: str = ""
    """The newest segment there."""


@dataclass(frozen=True)
class Facts:
    """All of it. `live` is the cluster on the database's port."""

    tool: str
    """pgBackRest's version; empty where it is not installed."""
    clusters: tuple[Cluster, ...]
    port: int
    now: float
    archiving: Archiving | None
    """None where the live cluster does not answer."""
    repository: Repository
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the files say that are to be written."""

    @property
    def live(self) -> Cluster | None:
        """The cluster on the database's port; of several the one that runs."""
        there = [one for one in self.clusters if one.port == self.port]
        return next((one for one in there if one.running), there[0] if there else None)

    @property
    def departures(self) -> tuple[Departure, ...]:
        """The times at which the live database was taken back, oldest target first."""
        noted = parse_departures(str(self.live.note.get("departures", ""))) if self.live else ()
        return tuple(sorted({*noted, *(d for b in self.repository.bases for d in b.departures)}))

    @property
    def window(self) -> Window | None:
        """The moments that can be restored; None: there is no whole backup."""
        whole = [base for base in self.repository.bases if base.sound]
        if not whole:
            return None
        # Seconds are all that pgBackRest tells of a backup's end.
        return Window(whole[0].stopped + 1, self._newest())

    def _newest(self) -> float | None:
        found = self.archiving
        if found is None or not found.on:
            return None
        return found.written if found.failing else found.now


def parse_clusters(text: str, notes: Mapping[str, str]) -> tuple[Cluster, ...]:
    """What `pg_lsclusters --json` printed; `notes` by folder of configuration."""
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


def parse_archiving(said: Mapping[str, Any]) -> Archiving:
    """What the query (`queries.ARCHIVING`) found."""
    archiver, waiting = said["archiver"], said.get("waiting") or {}
    settings = {
        name: Setting(found["value"] or "", found["file"] or "")
        for name, found in (said["settings"] or {}).items()
    }
    return Archiving(
        settings=settings,
        now=said["now"],
        recovery=said["recovery"],
        archived=archiver["archived"],
        last=archiver["last"] or "",
        last_at=archiver["last_at"] or 0.0,
        failed=archiver["failed"],
        failed_last=archiver["failed_last"] or "",
        failed_at=archiver["failed_at"] or 0.0,
        written=said.get("written") or archiver["last_at"] or 0.0,
        waiting=waiting.get("count", 0),
        waiting_seconds=waiting.get("seconds", 0.0),
        databases=tuple(said.get("databases") or ()),
    )


def parse_repository(text: str) -> Repository:
    """What `pgbackrest info --output=json` printed of one stanza."""
    found: Sequence[Mapping[str, Any]] = json.loads(text or "[]")
    if not found:
        return Repository()
    stanza = found[0]
    bases = tuple(
        Base(
            label=one["label"],
            kind=one["type"],
            started=one["timestamp"]["start"],
            stopped=one["timestamp"]["stop"],
            size=one["info"]["size"],
            # Of blocks and bundles it tells no size of the whole.
            stored=one["info"]["repository"]["delta"],
            sound=not one.get("error"),
            departures=parse_departures((one.get("annotation") or {}).get(DEPARTURES, "")),
        )
        for one in stanza.get("backup") or ()
    )
    status = stanza["status"]
    archive = stanza.get("archive") or [{}]
    return Repository(
        # 1: no stanza there; 2: a stanza without a backup.
        stanza=bool(stanza.get("db")) and status["code"] in (0, 2),
        bases=bases,
        problem="" if status["code"] == 0 else _problem(stanza),
        wal=archive[-1].get("max") or "",
    )


def _problem(stanza: Mapping[str, Any]) -> str:
    said = [one["status"]["message"] for one in stanza.get("repo") or () if one["status"]["code"]]
    return "; ".join(said) or str(stanza["status"]["message"])
