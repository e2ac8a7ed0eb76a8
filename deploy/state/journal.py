"""The journal: one JSON line for each run, append-only, on every host of the environment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.hosts.host import Host

_APPEND = (
    'umask 077; mkdir -p "${1%/*}" && { printf "\\n"; cat; printf "\\n"; } >>"$1" && sync "$1"'
)


@dataclass(frozen=True)
class Record:
    """One run. Times are seconds since the epoch, UTC.

    `outcome` is one of `succeeded`, `incomplete` (live and verified, but a later step failed),
    `reverted`, `failed` (the revert failed too), `interrupted`, `abandoned` (the deployer was
    killed, or another run took over its lock; written when the lock is removed, on its host only).
    """

    id: str
    kind: str
    environment: str
    hosts: tuple[str, ...]
    version: str
    digest: str
    revision: str
    outcome: str
    requested_by: str
    started: float
    finished: float
    schema: str = ""
    previous: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""
    """Hash of the plan."""
    strategy: str = "blue-green"
    steps: tuple[Mapping[str, Any], ...] = ()
    approved_by: tuple[str, ...] = ()
    remediates: str = ""
    """The id of the run that this one repairs: the failed or rolled-back deploy."""
    error: str = ""
    allowed: tuple[str, ...] = ()
    """The refused changes that the operator allowed: `unsafe-migration`, `downgrade`."""

    @property
    def live(self) -> bool:
        """Whether this run made its release live."""
        return self.outcome in ("succeeded", "incomplete")

    def line(self) -> bytes:
        """The record as one line of JSON, without a line break."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def parse(text: str) -> tuple[Record, ...]:
    """The records in a journal's text, oldest first; an incomplete line is skipped."""
    records = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
            known = {key: values[key] for key in values if key in Record.__dataclass_fields__}
            for name in ("hosts", "steps", "approved_by", "allowed"):
                known[name] = tuple(known.get(name, ()))
            records.append(Record(**known))
        except (ValueError, TypeError):
            continue
    return tuple(records)


def merge(journals: Iterable[tuple[Record, ...]]) -> tuple[Record, ...]:
    """The records of all hosts, oldest first, each run once."""
    by_id = {record.id: record for journal in journals for record in journal}
    return tuple(sorted(by_id.values(), key=lambda record: record.started))


def path(directory: str) -> str:
    """The journal's path in an environment's directory."""
    return f"{directory}/journal.jsonl"


def mark(id: str) -> str:
    """A text that only the line of the run with this id contains."""
    return f'"id":{json.dumps(id)}'


def append(host: Host, directory: str, record: Record) -> None:
    """Append a record on one host; the blank lines separate it from an incomplete line."""
    host.run(("sh", "-c", _APPEND, "journal", path(directory)), stdin=record.line())
