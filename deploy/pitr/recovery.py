"""Going back to a moment: a new cluster beside the live one, and the exchange of the two."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deploy.errors import CommandFailed, DeployError, GateRefused
from deploy.pitr import queries
from deploy.pitr.configuration import NOTE, config_path
from deploy.pitr.facts import DEPARTURES, Base, Cluster, Facts, parse_archiving
from deploy.pitr.moment import Departure, show

if TYPE_CHECKING:
    from deploy.pitr.server import Server

ROOM = 1.2
"""How many times the size of the base backup must be free."""
PATIENCE = 90.0
"""Seconds in which the newest segment must be in the repository."""
_INTERVAL = 0.2
OVERRIDE = "zz-amani-restored.conf"
"""Wins over every other file in conf.d while a cluster stands beside the live one."""

# $1 version, $2 live cluster, $3 new one, $4 its port, $5 its data, $6 the overriding file, $7 the
# note to leave and $8 its name. It has the live one's settings, for recovery needs as much room for
# connections and locks as there was; and its note from the start, so that it can be pruned.
_MAKE = r"""
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
# $1 version, $2 name, $3 data, $4 the live port. A restore that nobody waits for any more is ended
# first; what has become the live cluster meanwhile stays.
_DROP = """
[ "$(pg_conftool --short "$1" "$2" show port 2>/dev/null)" != "$4" ]
pkill -u postgres -f -- "--pg1-path=$3( |$)" || :
pg_dropcluster --stop "$1" "$2" 2>/dev/null || :
rm -rf "/etc/postgresql/$1/$2" "$3" "${3}_tablespaces"
"""
# $1 version, $2 live cluster, $3 the one to take its place, $4 the live port, $5 the other one,
# $6 pgBackRest's configuration, $7 and $8 the clusters' data, $9 name of the notes, ${10} and
# ${11} the notes to leave, ${12} the overriding file. Once begun it runs to its end, whatever
# becomes of who asked for it; where a part of it fails the live cluster is as before.
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
# It began its timeline while it archived nothing. Unless the repository hears of that, the next
# recovery begins one of the same number, and the two are taken for one.
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


@dataclass(frozen=True)
class Recovered:
    """A cluster that was brought to a moment; `until` is when the last transaction in it was
    committed, in seconds since the epoch (0: none after the base backup)."""

    cluster: Cluster
    base: Base
    until: float
    seconds: float


def base_for(facts: Facts, moment: datetime) -> Base:
    """The base backup that a moment is restored from. Raises `GateRefused` without any."""
    before = [
        base for base in facts.repository.bases if base.sound and base.stopped < moment.timestamp()
    ]
    if not before:
        raise GateRefused("no base backup was whole before that moment")
    return before[-1]


def require_room(server: Server, live: Cluster, base: Base) -> None:
    """Raise `GateRefused` where the disk has no room for a second cluster."""
    free = int(server.script(_FREE, _parent(live.data)))
    needed = round(ROOM * base.size)
    if free < needed:
        raise GateRefused(
            f"{server.name}: {free / 1e6:,.0f} MB are free beside {live.data}, and a second cluster"
            f" needs {needed / 1e6:,.0f} MB",
            hint="make room: `invoke db.pitr.prune` removes what earlier restores left",
            host=server.name,
        )


def archive_all(server: Server, live: Cluster, check: Callable[[], None]) -> None:
    """See to it that all that was committed until now is in the repository, and one commit more.

    Raises `DeployError` where the newest segment does not arrive.
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
                f" {PATIENCE:g} s; archived is all until {show(found.written)}",
                hint="`invoke db.pitr.status` tells why; a moment before that can be restored,"
                " as far as the repository answers",
                host=server.name,
            )
        time.sleep(_INTERVAL)


def make(server: Server, facts: Facts, live: Cluster, moment: datetime, first_port: int) -> Cluster:
    """The configuration of a new cluster beside the live one, which is not yet there itself."""
    taken = {one.port for one in facts.clusters}
    port = next(port for port in range(first_port, 65536) if port not in taken)
    name = f"restored_{time.strftime('%Y%m%d%H%M%S', time.gmtime(facts.now))}"
    data = f"{_parent(live.data)}/{name}"
    note = {
        "environment": server.stanza,
        "target": moment.timestamp(),
        "departures": _told(facts.departures),
    }
    made = replace(
        live,
        note=note,
        name=name,
        port=port,
        running=False,
        data=data,
        config=f"/etc/postgresql/{live.version}/{name}",
        log=f"/var/log/postgresql/postgresql-{live.version}-{name}.log",
    )
    words = [live.version, live.name, name, str(port), data, OVERRIDE, json.dumps(note), NOTE]
    server.script(_MAKE, *words)
    return made


def restore(
    server: Server,
    cluster: Cluster,
    moment: datetime,
    *,
    timeline: int | None,
    timeout: float,
) -> None:
    """Fill a cluster with the base backup before a moment."""
    options = ["--type=time", f"--target={moment:%Y-%m-%d %H:%M:%S.%f}+00"]
    options += ["--target-action=promote", f"--pg1-path={cluster.data}"]
    if timeline is not None:
        options.append(f"--target-timeline=0x{timeline:X}")
    # Where they were, those of the live cluster are.
    options.append(f"--tablespace-map-all={cluster.data}_tablespaces")
    server.pgbackrest("restore", *options, timeout=timeout)


def recover(
    server: Server,
    cluster: Cluster,
    moment: datetime,
    *,
    timeout: float,
    check: Callable[[], None],
    tell: Callable[[str], None],
) -> float:
    """Start a restored cluster and wait until it has reached the moment; when the last transaction
    in it was committed. Raises `DeployError` with the server's last words where it ends before."""
    server.run(
        ("pg_ctlcluster", cluster.version, cluster.name, "start"), timeout=timeout, check=False
    )
    deadline = time.monotonic() + timeout
    while True:
        check()
        with contextlib.suppress(CommandFailed):
            said: dict[str, Any] = server.query(cluster, queries.RECOVERED)
            if not said["recovery"]:
                return float(said["until"] or 0.0)
            tell(f"replayed until {show(said['until'])}")
        argv = ("pg_ctlcluster", cluster.version, cluster.name, "status")
        if server.run(argv, check=False).status:
            raise _ended(server, cluster, moment)
        if time.monotonic() > deadline:
            raise DeployError(
                f"{server.name}: {cluster.label} did not reach {show(moment)} within"
                f" {timeout:g} s",
                hint="raise `backups.timeout`",
                host=server.name,
            )
        time.sleep(_INTERVAL)


def _ended(server: Server, cluster: Cluster, moment: datetime) -> DeployError:
    words = server.script('tail -n 25 "$1"', cluster.log)
    last = re.findall(r"last completed transaction was at log time (\S+ [\d:]+)", words)
    if "before configured recovery target was reached" in words:
        until = f": the last transaction in it is of {last[-1]} UTC" if last else ""
        return GateRefused(
            f"the archive ends before {show(moment)}{until}",
            hint="choose that moment or one before it",
            host=server.name,
        )
    return DeployError(
        f"{server.name}: {cluster.label} ended in its recovery; its last words:\n{words.strip()}",
        hint="the live cluster is as it was",
        host=server.name,
    )


def swap(
    server: Server, live: Cluster, fresh: Cluster, moment: datetime, facts: Facts
) -> tuple[Departure, ...]:
    """Make a restored cluster the live one, on its port; the one before stays, stopped.

    Returns the times at which the live database was taken back, this one among them. Raises
    `DeployError` where it fails; the live cluster is as before then.
    """
    now = server.clusters()[1]
    left = Departure(moment.timestamp(), now, int(facts.repository.wal[:8] or "1", 16))
    every = (*facts.departures, left)
    old_note = json.dumps({"environment": server.stanza, "replaced": now})
    new_note = json.dumps({"environment": server.stanza, "departures": _told(every)})
    words = [live.version, live.name, fresh.name, str(live.port), str(fresh.port)]
    words += [config_path(server.stanza), live.data, fresh.data, NOTE, old_note, new_note, OVERRIDE]
    try:
        server.script(_DETACHED, _SWAP, *words, timeout=900)
    except CommandFailed as error:
        raise DeployError(
            f"{server.name}: {fresh.label} could not take the place of {live.label}, which is live"
            f" as before:\n{error.output.strip()}",
            host=server.name,
        ) from None
    return every


def remember(departures: Sequence[Departure]) -> tuple[str, ...]:
    """The option of pgBackRest by which a base backup remembers them."""
    return (f"--annotation={DEPARTURES}={_told(departures)}",) if departures else ()


def _told(departures: Sequence[Departure]) -> str:
    return ";".join(departure.text() for departure in departures)


def drop(server: Server, cluster: Cluster, live_port: int) -> None:
    """Remove a cluster with all that it holds, unless it is the live one."""
    words = (cluster.version, cluster.name, cluster.data, str(live_port))
    server.script(_DROP, *words, timeout=600)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
