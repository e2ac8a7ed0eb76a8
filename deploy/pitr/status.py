"""The status of point-in-time recovery: its facts and problems as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.pitr import queries
from deploy.pitr.configuration import archive_command
from deploy.pitr.facts import Archiving, ClusterFacts, parse_archiving
from deploy.pitr.recovery_target import format_time

if TYPE_CHECKING:
    from deploy.environment.sections import PitrConfig

BASE_AGE = 8 * 86400
"""Seconds after which a base backup is too old: a recovery replays the whole log since then."""
WAIT = 300.0
"""Seconds after which a full segment that is not archived is a problem."""

_MONITOR = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
_SERVER = """
SELECT json_build_object(
  'version', current_setting('server_version'), 'user', current_user,
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'replication', (SELECT rolreplication FROM pg_roles WHERE rolname = current_user),
  'monitor', pg_has_role(current_user, 'pg_monitor', 'member'))
"""
STATUS_QUERIES: tuple[tuple[str, str], ...] = (
    ("the state of archiving", queries.VISIBLE),
    ("the user's rights", _SERVER),
    ("the number of segments that wait", _MONITOR),
)
"""Labels and queries for a server that is only reachable through its connection."""


@dataclass(frozen=True)
class RecoveryStatus:
    """Labelled rows for people, and the problems."""

    rows: Sequence[tuple[str, str]]
    problems: Sequence[str] = ()
    hidden: Sequence[str] = ()
    """Information that the deployer cannot see."""


def status_of_cluster(
    name: str, facts: ClusterFacts, config: PitrConfig, errors: str = ""
) -> RecoveryStatus:
    """The status of a self-hosted PostgreSQL; `errors` are the last ones in its log."""
    problems = [*_cluster_problems(name, facts, errors), *_repository_problems(facts)]
    rows = [("cluster", facts.live.label if facts.live else f"none on port {facts.port}")]
    if facts.archiving:
        rows += _archiver_rows(facts.archiving)
        rows.append(
            ("possible data loss (RPO)", f"{config.archive_timeout} s while archiving works")
        )
    if facts.window:
        rows.append(("recovery window", facts.window.describe()))
    for base in facts.repository.bases:
        damaged = "" if base.sound else "; with damaged pages"
        rows.append((f"{base.kind} backup", f"{format_time(base.stopped)}, {base.sizes}{damaged}"))
    for one in facts.clusters:
        if one.note.get("environment") == name and one.port != facts.port:
            origin = "was live" if "replaced" in one.note else "was recovered"
            state = "runs" if one.running else "is stopped"
            rows.append((f"cluster {one.label}", f"{origin}, {state} (port {one.port})"))
    return RecoveryStatus(rows, problems)


def _archiver_rows(found: Archiving) -> Iterator[tuple[str, str]]:
    last = f"{found.last} at {format_time(found.last_at)}" if found.last else "none yet"
    yield "archived", f"{found.archived:,} segments, the last: {last}"
    yield "archived up to", f"{format_time(found.written or None)}"
    wait = f", the oldest for {found.waiting_seconds:,.0f} s" if found.waiting else ""
    yield "waiting to be archived", f"{found.waiting:,} segments{wait}"
    failed = f", the last at {format_time(found.failed_at)}" if found.failed else ""
    yield "failed attempts", f"{found.failed:,}{failed}"


def _cluster_problems(name: str, facts: ClusterFacts, errors: str) -> Iterator[str]:
    found = facts.archiving
    if found is None:
        yield f"the database does not answer on port {facts.port}"
        return
    if not found.on or found.value("archive_command") != archive_command(name):
        yield "the database is not archived (invoke db.pitr.setup)"
        return
    if found.failing:
        details = f":\n{errors}" if errors else ""
        yield f"{_failing(found)}{details}"
    if found.waiting_seconds > WAIT:
        yield f"{found.waiting} segments wait, the oldest for {found.waiting_seconds:,.0f} s"


def _failing(found: Archiving) -> str:
    return f"archiving has failed since {format_time(found.failed_at)}, at {found.failed_last}"


def _repository_problems(facts: ClusterFacts) -> Iterator[str]:
    if not facts.tool:
        yield "pgBackRest is not installed (invoke db.pitr.setup)"
    elif facts.repository.problem:
        yield f"the repository: {facts.repository.problem}"
    elif facts.window is None:
        yield "there is no base backup, so nothing can be recovered (invoke db.pitr.backup)"
    elif facts.now - facts.repository.bases[-1].stopped > BASE_AGE:
        newest = format_time(facts.repository.bases[-1].stopped)
        yield f"the newest base backup is from {newest}; a recovery replays all log since then"


def status_of_connection(answers: Sequence[Mapping[str, Any]]) -> RecoveryStatus:
    """The status of a managed PostgreSQL, from its answers to `STATUS_QUERIES`."""
    hidden = [
        f"{label}: {one['error']}"
        for (label, _), one in zip(STATUS_QUERIES, answers, strict=True)
        if one["error"]
    ]
    hidden += [
        "the points in time that the provider can restore (see its dashboard), and whether a"
        " restore works (try it in a new project)",
        "the place of the archive, its retention, and who can remove it",
    ]
    rows: list[tuple[str, str]] = []
    problems: list[str] = []
    server = answers[1]["value"] or {}
    if server:
        rights = [right for right in ("superuser", "replication", "monitor") if server[right]]
        rows.append(("server", f"PostgreSQL {server['version']}"))
        rows.append(
            ("connected as", f"{server['user']} ({', '.join(rights) or 'no special rights'})")
        )
    if answers[0]["value"]:
        found = parse_archiving(answers[0]["value"])
        rows += [(name, found.value(name) or "empty") for name in sorted(found.settings)]
        rows += [row for row in _archiver_rows(found) if row[0] in ("archived", "failed attempts")]
        problems += _service_problems(found)
    if answers[2]["value"] is not None:
        rows.append(("waiting to be archived", f"{answers[2]['value']} segments"))
    return RecoveryStatus(rows, problems, hidden)


def _service_problems(found: Archiving) -> Iterator[str]:
    if not found.on:
        yield "the server does not archive (archive_mode is off): only backups can be restored"
    elif found.failing:
        yield _failing(found)
    elif not found.archived:
        yield "nothing has been archived since the statistics were reset"
