"""Whether a database can be taken back, and to which moments: facts in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.pitr import queries
from deploy.pitr.configuration import archive_command
from deploy.pitr.facts import Archiving, Facts, parse_archiving
from deploy.pitr.moment import show

if TYPE_CHECKING:
    from deploy.environment.sections import PitrConfig

BASE_AGE = 8 * 86400
"""Seconds after which a base backup is too old: every one adds to what must be replayed."""
WAIT = 300.0
"""Seconds that a segment may wait to be archived."""

_MONITOR = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
_SERVER = """
SELECT json_build_object(
  'version', current_setting('server_version'), 'user', current_user,
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'replication', (SELECT rolreplication FROM pg_roles WHERE rolname = current_user),
  'monitor', pg_has_role(current_user, 'pg_monitor', 'member'))
"""
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("its archiving", queries.VISIBLE),
    ("who asks", _SERVER),
    ("how many segments wait to be archived", _MONITOR),
)
"""What is asked of a server that only a connection leads to."""


@dataclass(frozen=True)
class Status:
    """What was asked and what was found, and what is wrong with it."""

    rows: Sequence[tuple[str, str]]
    problems: Sequence[str] = ()
    hidden: Sequence[str] = ()
    """What cannot be seen from here."""


def of_a_machine(name: str, facts: Facts, config: PitrConfig, words: str = "") -> Status:
    """Of a PostgreSQL on a machine of one's own; `words` are what its log says last of failures."""
    problems = [*_cluster_problems(name, facts, words), *_repository_problems(facts)]
    rows = [("cluster", facts.live.label if facts.live else f"none on port {facts.port}")]
    if facts.archiving:
        rows += _archiver_rows(facts.archiving)
        rows.append(("may be lost with the machine", f"{config.archive_timeout} s, if all is well"))
    if facts.window:
        rows.append(("can be restored", facts.window.describe()))
    for base in facts.repository.bases:
        sizes = f"{base.size / 1e6:,.1f} MB, stored {base.stored / 1e6:,.1f} MB"
        damaged = "" if base.sound else "; with damaged pages"
        rows.append((f"{base.kind} backup", f"{show(base.stopped)}, {sizes}{damaged}"))
    for one in facts.clusters:
        if one.note.get("environment") == name and one.port != facts.port:
            what = "was live" if "replaced" in one.note else "was restored"
            state = "runs" if one.running else "is stopped"
            rows.append((f"cluster {one.label}", f"{what}, {state} (port {one.port})"))
    return Status(rows, problems)


def _archiver_rows(found: Archiving) -> Iterator[tuple[str, str]]:
    last = f"{found.last} at {show(found.last_at)}" if found.last else "none yet"
    yield "archived", f"{found.archived:,} segments, the last: {last}"
    yield "safe without the machine", f"all until {show(found.written or None)}"
    wait = f", the oldest for {found.waiting_seconds:,.0f} s" if found.waiting else ""
    yield "waiting to be archived", f"{found.waiting:,} segments{wait}"
    failed = f", the last at {show(found.failed_at)}" if found.failed else ""
    yield "failed attempts", f"{found.failed:,}{failed}"


def _cluster_problems(name: str, facts: Facts, words: str) -> Iterator[str]:
    found = facts.archiving
    if found is None:
        yield f"the database does not answer on port {facts.port}"
        return
    if not found.on or found.value("archive_command") != archive_command(name):
        yield "the database is not archived (invoke db.pitr.setup)"
        return
    if found.failing:
        said = f":\n{words}" if words else ""
        yield f"archiving fails since {show(found.failed_at)}, at {found.failed_last}{said}"
    if found.waiting_seconds > WAIT:
        yield f"{found.waiting} segments wait, the oldest for {found.waiting_seconds:,.0f} s"


def _repository_problems(facts: Facts) -> Iterator[str]:
    if not facts.tool:
        yield "pgBackRest is not installed (invoke db.pitr.setup)"
    elif facts.repository.problem:
        yield f"the repository: {facts.repository.problem}"
    elif facts.window is None:
        yield "there is no base backup, so nothing can be restored (invoke db.pitr.backup)"
    elif facts.now - facts.repository.bases[-1].stopped > BASE_AGE:
        newest = show(facts.repository.bases[-1].stopped)
        yield f"the newest base backup is of {newest}; a restore replays all since"


def of_a_service(said: Sequence[Mapping[str, Any]]) -> Status:
    """Of a managed PostgreSQL: the answers to `QUESTIONS`, as its connection gave them."""
    hidden = [
        f"{what}: {one['error']}"
        for (what, _), one in zip(QUESTIONS, said, strict=True)
        if one["error"]
    ]
    hidden += [
        "which moments the provider can restore, and whether a restore works: its dashboard tells"
        " the one, only a restore into a new project the other",
        "where the archive is, how long it is kept, and who else may remove it",
    ]
    rows: list[tuple[str, str]] = []
    problems: list[str] = []
    server = said[1]["value"] or {}
    if server:
        rights = [right for right in ("superuser", "replication", "monitor") if server[right]]
        rows.append(("server", f"PostgreSQL {server['version']}"))
        rows.append(("asked as", f"{server['user']} ({', '.join(rights) or 'no special rights'})"))
    if said[0]["value"]:
        found = parse_archiving(said[0]["value"])
        rows += [(name, found.value(name) or "empty") for name in sorted(found.settings)]
        rows += [row for row in _archiver_rows(found) if row[0] in ("archived", "failed attempts")]
        problems += _service_problems(found)
    if said[2]["value"] is not None:
        rows.append(("waiting to be archived", f"{said[2]['value']} segments"))
    return Status(rows, problems, hidden)


def _service_problems(found: Archiving) -> Iterator[str]:
    if not found.on:
        yield "the server does not archive (archive_mode is off): backups are all there is"
    elif found.failing:
        yield f"archiving fails since {show(found.failed_at)}, at {found.failed_last}"
    elif not found.archived:
        yield "nothing was archived since its statistics were reset"
