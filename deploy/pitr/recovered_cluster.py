"""Recover to a point in time: a new cluster beside the live one, and the swap of the two."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deploy.errors import CommandFailed, DeployError, GateRefused
from deploy.pitr import queries
from deploy.pitr.configuration import NOTE, config_path
from deploy.pitr.facts import PAST_RECOVERIES, BaseBackup, Cluster, ClusterFacts, parse_archiving
from deploy.pitr.recovery_target import PastRecovery, format_time

if TYPE_CHECKING:
    from deploy.pitr.server import DatabaseServer

ROOM = 1.2
"""The free space that a recovery needs, as a multiple of the base backup's size."""
PATIENCE = 90.0
"""Seconds in which the newest segment must reach the repository."""
_INTERVAL = 0.2
OVERRIDE = "zz-amani-restored.conf"
"""Overrides every other file in conf.d until the cluster is live."""

# $1 version, $2 live cluster, $3 new one, $4 its port, $5 its data, $6 the overriding file, $7 the
# content of the note and $8 its name. The new cluster has the live one's settings, since recovery
# needs as many connections and locks; and its note from the start, so that it can be pruned.
_CREATE = r"""
etc=/etc/postgresql/$1
cp -a "$etc/$2" "$etc/.$3"
printf '%s\n' "$7" >"$etc/.$3/$8"
mv -T "$etc/.$3" "$etc/$3"
echo manual >"$etc/$3/start.conf"
set_to() { pg_conftool "$version" "$name" set "$@"; }
version=$1 name=$3
set_to data_directory "$5"
set_to hba_file "$etc/$3/pg_hba.conf"
set_to ident_file "$etc/$3/pg_ident.conf"
set_to external_pid_file "/var/run/postgresql/$1-$3.pid"
set_to cluster_name "$1/$3"
set_to port "$4"
mkdir -p "$etc/$3/conf.d"
echo 'archive_mode = off' >"$etc/$3/conf.d/$6"
install -d -m 700 -o postgres -g postgres "$5"
"""
# $1 version, $2 name, $3 data, $4 the live port. Ends a restore that still runs there. Fails if the
# cluster has become the live one.
_DROP = """
[ "$(pg_conftool --short "$1" "$2" show port 2>/dev/null)" != "$4" ]
pkill -u postgres -f -- "--pg1-path=$3( |$)" || :
pg_dropcluster --stop "$1" "$2" 2>/dev/null || :
rm -rf "/etc/postgresql/$1/$2" "$3" "${3}_tablespaces"
"""
# $1 version, $2 live cluster, $3 new cluster, $4 the live port, $5 the port of the new cluster,
# $6 pgBackRest's configuration, $7 and $8 the clusters' data, $9 name of the notes, ${10} and
# ${11} the contents of the notes, ${12} the overriding file. It runs to its end even if the
# deployer is killed; if a command fails, it makes the old cluster live again.
_SWAP = r"""
set -eu
version=$1 old=$2 new=$3 port=$4 spare=$5 tool=$6 before=$7 after=$8 note=$9
etc=/etc/postgresql/$version
shift 9
old_note=$1 new_note=$2 override=$etc/$new/conf.d/$3
halt() {
    ! pg_ctlcluster "$version" "$1" status >/dev/null || pg_ctlcluster "$version" "$1" stop -m fast
}
path() { sed -i "s|^pg1-path=.*|pg1-path=$1|" "$tool"; }
undo() {
    trap - EXIT
    set +e
    halt "$new"
    pg_conftool "$version" "$new" set port "$spare"
    echo manual >"$etc/$new/start.conf"
    echo 'archive_mode = off' >"$override"
    path "$before"
    pg_conftool "$version" "$old" set port "$port"
    mv "$etc/$old/start.before" "$etc/$old/start.conf"
    pg_ctlcluster "$version" "$old" start
    exit 1
}
cp "$etc/$old/start.conf" "$etc/$old/start.before"
trap undo EXIT
halt "$old"
halt "$new"
pg_conftool "$version" "$old" set port "$spare"
echo manual >"$etc/$old/start.conf"
pg_conftool "$version" "$new" set port "$port"
echo auto >"$etc/$new/start.conf"
rm -f "$override"
path "$after"
# The new cluster began its timeline while it archived nothing. Its history file must reach the
# repository: otherwise the next recovery begins a second timeline with the same number.
for history in "$after"/pg_wal/*.history; do
    mark=$after/pg_wal/archive_status/${history##*/}
    [ ! -e "$history" ] || [ -e "$mark.done" ] ||
        install -m 600 -o postgres -g postgres /dev/null "$mark.ready"
done
pg_ctlcluster "$version" "$new" start
trap - EXIT
rm "$etc/$old/start.before"
printf '%s\n' "$old_note" >"$etc/$old/$note"
printf '%s\n' "$new_note" >"$etc/$new/$note"
"""
_DETACHED = (
    'log=$(mktemp); script=$1; shift; setsid --wait sh -c "$script" swap "$@" >"$log" 2>&1 '
    '</dev/null && code=0 || code=$?; cat "$log"; rm "$log"; exit "$code"'
)
_FREE = 'mkdir -p "$1"; df --output=avail -B1 "$1" | tail -n 1'


def base_for(facts: ClusterFacts, target: datetime) -> BaseBackup:
    """The base backup that a recovery starts from. Raises `GateRefused` without one."""
    before = [
        base for base in facts.repository.bases if base.sound and base.stopped < target.timestamp()
    ]
    if not before:
        raise GateRefused(
            f"no undamaged base backup ended before {format_time(target)}",
            hint="choose a later point in time, or restore an older backup: invoke db.list",
        )
    return before[-1]


def require_room(server: DatabaseServer, live: Cluster, base: BaseBackup) -> None:
    """Raise `GateRefused` if the disk has no room for a second cluster."""
    free = int(server.script(_FREE, _parent(live.data)))
    needed = round(ROOM * base.size)
    if free < needed:
        raise GateRefused(
            f"{server.name}: {free / 1e6:,.0f} MB are free beside {live.data}, and a second cluster"
            f" needs {needed / 1e6:,.0f} MB",
            hint="free some space: `invoke db.pitr.prune` removes the clusters of earlier"
            " recoveries",
            host=server.name,
        )


def archive_all(server: DatabaseServer, live: Cluster, check: Callable[[], None]) -> None:
    """Archive all committed transactions and one more, and wait until they are in the repository.

    Raises `DeployError` if the newest segment does not arrive.
    """
    server.query(live, queries.COMMIT)
    newest = str(server.query(live, queries.SWITCH))
    deadline = time.monotonic() + PATIENCE
    while True:
        found = parse_archiving(server.query(live, queries.ARCHIVING))
        if found.last[:24] >= newest:
            return
        check()
        if time.monotonic() > deadline:
            raise DeployError(
                f"{server.name}: the segment {newest} did not reach the repository within"
                f" {PATIENCE:g} s; the archive ends at {format_time(found.written)}",
                hint="`invoke db.pitr.status` shows the cause; an earlier point in time can be"
                " recovered if the repository answers",
                host=server.name,
            )
        time.sleep(_INTERVAL)


def create(
    server: DatabaseServer, facts: ClusterFacts, live: Cluster, target: datetime, first_port: int
) -> Cluster:
    """Create the configuration of a new cluster beside the live one, without any data.

    Its port is the first free one from `first_port` on.
    """
    taken = {one.port for one in facts.clusters}
    port = next(port for port in range(first_port, 65536) if port not in taken)
    name = f"restored_{time.strftime('%Y%m%d%H%M%S', time.gmtime(facts.now))}"
    data = f"{_parent(live.data)}/{name}"
    note = {
        "environment": server.stanza,
        "target": target.timestamp(),
        "departures": _joined(facts.past_recoveries),
    }
    created = replace(
        live,
        note=note,
        name=name,
        port=port,
        running=False,
        data=data,
        config=f"/etc/postgresql/{live.version}/{name}",
        log=f"/var/log/postgresql/postgresql-{live.version}-{name}.log",
    )
    arguments = [live.version, live.name, name, str(port), data, OVERRIDE, json.dumps(note), NOTE]
    server.script(_CREATE, *arguments)
    return created


def restore(
    server: DatabaseServer,
    cluster: Cluster,
    target: datetime,
    *,
    timeline: int | None,
    timeout: float,
) -> None:
    """Restore the base backup before a target into a cluster, configured to recover to it."""
    options = ["--type=time", f"--target={target:%Y-%m-%d %H:%M:%S.%f}+00"]
    options += ["--target-action=promote", f"--pg1-path={cluster.data}"]
    if timeline is not None:
        options.append(f"--target-timeline=0x{timeline:X}")
    # The original paths hold the tablespaces of the live cluster.
    options.append(f"--tablespace-map-all={cluster.data}_tablespaces")
    server.pgbackrest("restore", *options, timeout=timeout)


def recover(
    server: DatabaseServer,
    cluster: Cluster,
    target: datetime,
    *,
    timeout: float,
    check: Callable[[], None],
    report: Callable[[str], None],
) -> float:
    """Start a restored cluster and wait until it has reached the target.

    Returns when the last transaction in it was committed, in seconds since the epoch (0: none).
    `check` is called between polls, `report` with the progress. Raises `GateRefused` if the
    archive ends before the target, and `DeployError` if the server ends or the time is over.
    """
    server.run(
        ("pg_ctlcluster", cluster.version, cluster.name, "start"), timeout=timeout, check=False
    )
    deadline = time.monotonic() + timeout
    while True:
        check()
        with contextlib.suppress(CommandFailed):
            found: dict[str, Any] = server.query(cluster, queries.RECOVERED)
            if not found["recovery"]:
                return float(found["until"] or 0.0)
            report(f"replayed until {format_time(found['until'])}")
        argv = ("pg_ctlcluster", cluster.version, cluster.name, "status")
        if server.run(argv, check=False).status:
            raise _ended(server, cluster, target)
        if time.monotonic() > deadline:
            raise DeployError(
                f"{server.name}: {cluster.label} did not reach {format_time(target)} within"
                f" {timeout:g} s",
                hint="raise `backups.timeout`",
                host=server.name,
            )
        time.sleep(_INTERVAL)


def _ended(server: DatabaseServer, cluster: Cluster, target: datetime) -> DeployError:
    log = server.script('tail -n 25 "$1"', cluster.log)
    last = re.findall(r"last completed transaction was at log time (\S+ [\d:]+)", log)
    if "before configured recovery target was reached" in log:
        until = f": its last transaction is from {last[-1]} UTC" if last else ""
        return GateRefused(
            f"the archive ends before {format_time(target)}{until}",
            hint="choose that time or an earlier one",
            host=server.name,
        )
    return DeployError(
        f"{server.name}: {cluster.label} ended during its recovery; its log:\n{log.strip()}",
        hint="the live cluster is unchanged",
        host=server.name,
    )


def swap(
    server: DatabaseServer, live: Cluster, fresh: Cluster, target: datetime, facts: ClusterFacts
) -> tuple[PastRecovery, ...]:
    """Make a recovered cluster the live one, on its port; the replaced one stays, stopped.

    Returns the past recoveries, this one among them. Raises `DeployError` if it fails; the
    script then starts the replaced cluster again.
    """
    now = server.clusters()[1]
    this = PastRecovery(target.timestamp(), now, int(facts.repository.wal[:8] or "1", 16))
    every = (*facts.past_recoveries, this)
    old_note = json.dumps({"environment": server.stanza, "replaced": now})
    new_note = json.dumps({"environment": server.stanza, "departures": _joined(every)})
    arguments = [live.version, live.name, fresh.name, str(live.port), str(fresh.port)]
    arguments += [
        config_path(server.stanza),
        live.data,
        fresh.data,
        NOTE,
        old_note,
        new_note,
        OVERRIDE,
    ]
    with server.explaining(
        f"{fresh.label} could not replace {live.label}",
        hint=f"the script starts {live.label} again on such a failure: check it with pg_lsclusters",
    ):
        server.script(_DETACHED, _SWAP, *arguments, timeout=900)
    return every


def annotation(past_recoveries: Sequence[PastRecovery]) -> tuple[str, ...]:
    """The option of pgBackRest that stores past recoveries in a base backup; none if empty."""
    return (
        (f"--annotation={PAST_RECOVERIES}={_joined(past_recoveries)}",) if past_recoveries else ()
    )


def _joined(past_recoveries: Sequence[PastRecovery]) -> str:
    return ";".join(past.text() for past in past_recoveries)


def drop(server: DatabaseServer, cluster: Cluster, live_port: int) -> None:
    """Remove a cluster with its data. Raises `CommandFailed` if it is the live one."""
    arguments = (cluster.version, cluster.name, cluster.data, str(live_port))
    server.script(_DROP, *arguments, timeout=600)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
