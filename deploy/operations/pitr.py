"""Requests about point-in-time recovery: set up, back up, look, go back to a moment, tidy."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets as entropy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy import secrets
from deploy.backups.tool import database_url
from deploy.environment.model import load_environment
from deploy.errors import CommandFailed, DeployError, GateRefused, UsageError
from deploy.execute import interrupts
from deploy.hosts.connect import connect
from deploy.operations.backups import Desk, examine, open_desk, require_maintenance
from deploy.pitr import archive, configuration, moment, recovery, verdict
from deploy.pitr.facts import Archiving, Cluster, Facts
from deploy.pitr.plan import Plan, plan, require_live
from deploy.pitr.server import Server, open_server
from deploy.pitr.verdict import Status
from deploy.secrets.secret import Secret
from deploy.secrets.sources import load_repository_keys
from deploy.state import journal, lock

if TYPE_CHECKING:
    from datetime import datetime

    from deploy.environment.model import Environment
    from deploy.environment.sections import PitrConfig
    from deploy.events import Events
    from deploy.pitr.facts import Base
    from deploy.pitr.moment import Window

KINDS = ("full", "diff", "incr")


@dataclass(frozen=True)
class Place:
    """An environment's database on a machine of one's own."""

    environment: Environment
    config: PitrConfig
    keys: Mapping[str, Secret]
    port: int
    database: str
    """Its name, and the port of its cluster, as the database's URL says."""

    @classmethod
    def of(cls, name: str, events: Events) -> Place:
        """As the environment's file and its secrets say. Raises `UsageError` without any."""
        environment = load_environment(name)
        config = environment.backups.pitr
        if config is None:
            raise UsageError(
                f"{name} says nothing of point-in-time recovery",
                hint="`backups.pitr` in its file (docs/environments.md); a managed PostgreSQL has"
                " its own: docs/backups.md",
            )
        values = secrets.load_secrets(environment, registries=False)
        keys = load_repository_keys(environment)
        events.redact = secrets.Secrets({**values.values, **keys}).redact
        port, database = _whereabouts(environment, values)
        return cls(environment, config, keys, port, database)

    @contextlib.contextmanager
    def open(self) -> Iterator[Server]:
        """The machine."""
        environment = self.environment
        seconds = environment.backups.timeout
        with open_server(environment.name, self.config, seconds, environment.timeouts) as server:
            yield server

    def files(self, cluster: Cluster) -> dict[str, configuration.Placed]:
        """What has to be there for a cluster to archive."""
        return configuration.files(self.environment, cluster, self.config, self.keys)


def _whereabouts(environment: Environment, values: secrets.Secrets) -> tuple[int, str]:
    url = urlsplit(database_url(environment, values))
    if not url.scheme.startswith("postgres"):
        raise UsageError(f"the database of {environment.name} is no PostgreSQL: {url.scheme}")
    try:
        return url.port or 5432, url.path.strip("/") or url.username or ""
    except ValueError:
        raise UsageError(f"{environment.backups.secret} names no port that is one") from None


@contextlib.contextmanager
def _alone(environment: Environment, what: str) -> Iterator[Callable[[], None]]:
    """Hold the environment's lock; yields what raises once it was taken away."""
    host = connect(environment.lock_host, environment.timeouts)
    holder = lock.Holder.here(entropy.token_hex(4), what)
    try:
        with (
            interrupts.handle(by=interrupts.raise_interrupt),
            lock.hold(host, environment.folder, holder) as lease,
        ):
            yield lambda: _confirm(lease)
    finally:
        with contextlib.suppress(DeployError, OSError):
            host.close()


def _confirm(lease: lock.Lease) -> None:
    lease.confirm()
    lease.require()


# -- setting up and backing up ---------------------------------------------------------------------


def setup(
    name: str,
    events: Events,
    *,
    confirm: Callable[[str], None],
    dry_run: bool = False,
) -> Plan:
    """Let the database be archived, see a segment arrive, and make the first full backup.

    Safe to repeat: what is there already is left alone. `confirm` is asked before PostgreSQL is
    restarted, which archiving needs once; nothing was changed then. Returns what was done, or of a
    dry run what would be.
    """
    place = Place.of(name, events)
    with _alone(place.environment, "db.pitr.setup") as check, place.open() as server:
        made, cluster = _plan(place, server)
        if dry_run or not made.steps:
            return made
        if made.restarts:
            confirm(
                f"archiving needs PostgreSQL {cluster.label} on {server.name} to be restarted:"
                " every connection ends, and comes back seconds later. Restart it?"
            )
        archive.apply(made, server, cluster, place.config.repository, events, check)
        # A repository that was named anew is seen for the first time now.
        more = _plan(place, server)[0]
        archive.apply(more, server, cluster, place.config.repository, events, check)
        return Plan((*made.steps, *more.steps), made.files)


def _plan(place: Place, server: Server) -> tuple[Plan, Cluster]:
    facts = server.facts(place.port)
    cluster, archiving = require_live(facts, place.database)
    wanted = place.files(cluster)
    there = {path: server.read(path) or "" for path in wanted}
    facts = dataclasses.replace(facts, files=there)
    return plan(place.environment.name, facts, cluster, archiving, wanted), cluster


def back_up(name: str, events: Events, *, kind: str = "") -> Base:
    """Make a base backup: `full`, `diff` (all since the last full one), or `incr` (since the last).

    By default full where none is younger than a week, else diff. What `keep` says is no longer
    kept goes. Returns the new one.
    """
    if kind not in ("", *KINDS):
        raise UsageError(f"there is no kind of backup {kind!r}", hint=f"kinds: {', '.join(KINDS)}")
    place = Place.of(name, events)
    with _alone(place.environment, "db.pitr.backup") as check, place.open() as server:
        facts = server.facts(place.port)
        require_live(facts, place.database)
        _require_stanza(name, facts)
        full = [base.stopped for base in facts.repository.bases if base.kind == "full"]
        chosen = kind or ("diff" if full and full[-1] > facts.now - 7 * 86400 else "full")
        check()
        try:
            departures = recovery.remember(facts.departures)
            server.pgbackrest("backup", f"--type={chosen}", *departures)
        except CommandFailed as error:
            raise DeployError(
                f"{server.name}: no {chosen} backup could be made:\n{error.output.strip()}",
                hint=f"invoke db.pitr.status --env={name}",
                host=server.name,
            ) from None
        return server.facts(place.port).repository.bases[-1]


def _require_stanza(name: str, facts: Facts) -> None:
    if not facts.tool or not facts.repository.stanza:
        why = facts.repository.problem or "it was never set up"
        raise GateRefused(
            f"nothing of {name} is archived, or the repository does not answer: {why}",
            hint=f"invoke db.pitr.setup --env={name} --dry-run",
        )


# -- looking ---------------------------------------------------------------------------------------


def status(name: str, events: Events) -> Status:
    """Whether the database can be taken back, and to which moments. Changes nothing.

    Of a PostgreSQL that `backups.pitr` does not tell of, what its connection tells.
    """
    if load_environment(name).backups.pitr is None:
        return verdict.of_a_service(_ask_through_connection(name, events))
    place = Place.of(name, events)
    with place.open() as server:
        facts = server.facts(place.port)
        words = ""
        if facts.live and facts.archiving and facts.archiving.failing:
            words = archive.last_words(server, facts.live)
        return verdict.of_a_machine(name, facts, place.config, words)


def _ask_through_connection(name: str, events: Events) -> list[dict[str, Any]]:
    with open_desk(name, events, "db.pitr.status") as desk:
        _whereabouts(desk.environment, desk.secrets)
        asked = [sql for _, sql in verdict.QUESTIONS]
        return list(desk.tool.run("query", seconds=60, queries=asked))


def facts(name: str, events: Events) -> Facts | None:
    """What is, for the metrics; None where the machine cannot be asked."""
    place = Place.of(name, events)
    try:
        with place.open() as server:
            return server.facts(place.port)
    except DeployError as error:
        events.emit("warning", error.message)
        return None


# -- going back ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restored:
    """A cluster at a moment; `before` is the one that was live until now, empty where it still is.

    `seconds` are from the request to a proved database (with `before`: to one that serves), and
    `filling` is the part in which the base backup was copied.
    """

    cluster: Cluster
    base: Base
    until: float
    rows: int
    tables: int
    revision: str
    seconds: float
    filling: float
    before: str = ""


def restore(
    name: str,
    events: Events,
    *,
    to: str,
    zone: str = "",
    replace: bool = False,
    whole_cluster: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> Restored:
    """Bring the database as it was at a moment into a new cluster beside the live one; prove it.

    With `replace` that takes the live one's port: only in maintenance and after `confirm`; the one
    before stays, stopped, until `prune`. Other databases of the cluster go back as well, which
    needs `whole_cluster`. Raises `UsageError` for what is no moment, `GateRefused` for one that
    cannot be reached.
    """
    wanted = moment.parse(to, zone)
    place = Place.of(name, events)
    with open_desk(name, events, "db.pitr.restore") as desk, place.open() as server:
        started = time.monotonic()
        live, known = _require_restorable(name, place, server, wanted)
        base = recovery.base_for(known, wanted)
        recovery.require_room(server, live, base)
        if replace:
            require_maintenance(desk)
            _require_alone(place, known.archiving, whole_cluster)
            confirm(
                f"take the database of {name} back to {moment.show(wanted)}? What was written since"
                f" stays in the cluster {live.label}, which is stopped."
            )
        _archive_newest(desk, server, live, known.archiving, wanted)
        fresh = recovery.make(server, known, live, wanted, place.config.port)
        try:
            found, filling = _fill(desk, place, server, known, live, fresh, wanted)
        except BaseException:
            with contextlib.suppress(DeployError):
                recovery.drop(server, fresh, place.port)
            raise
        if replace:
            # What fails here leaves the restored one beside: nobody can tell from here whether the
            # exchange, once begun, came to its end.
            desk.check()
            departures = recovery.swap(server, live, fresh, wanted, known)
            # For a machine that takes this one's place: its clusters could not tell.
            remembered = recovery.remember(departures)
            server.pgbackrest("annotate", f"--set={base.label}", *remembered)
            archive.see_arrive(server, dataclasses.replace(fresh, port=live.port))
        result = Restored(
            cluster=fresh,
            base=base,
            until=found["until"],
            rows=sum(int(table["rows"]) for table in found["tables"].values()),
            tables=len(found["tables"]),
            revision=found["revision"],
            seconds=time.monotonic() - started,
            filling=filling,
            before=live.label if replace else "",
        )
        _record(desk, result, wanted)
        return result


def _require_restorable(
    name: str, place: Place, server: Server, wanted: datetime
) -> tuple[Cluster, Facts]:
    """The live cluster, whatever state that is in, and the facts. A machine that took the place of
    a lost one gets what it lacks to read the repository."""
    known = server.facts(place.port, repository=False)
    live = known.live
    if live is None:
        raise UsageError(
            f"no cluster has port {place.port} of the database's URL on {server.name}",
            hint="its settings are the new one's: pg_createcluster makes an empty one",
        )
    if not known.tool:
        archive.install(server)
    for path, file in place.files(live).items():
        if path != configuration.settings_path(live, name) and server.read(path) != file.content:
            server.write(path, file.content, secret=file.secret)
    known = server.facts(place.port)
    window = _window(name, known)
    if known.archiving and known.archiving.on:
        # Whatever failed until now may well succeed: the newest is archived before it is needed.
        window = dataclasses.replace(window, newest=None)
    window.require(wanted, known.now)
    return live, known


def _archive_newest(
    desk: Desk, server: Server, live: Cluster, archiving: Archiving | None, wanted: datetime
) -> None:
    """Let a server that runs archive what is newest. That it cannot is only told where the moment
    is in the archive already."""
    if archiving is None or not archiving.on:
        return
    desk.events.emit("note", "what is newest goes to the repository", host=server.name)
    try:
        recovery.archive_all(server, live, desk.check)
    except DeployError as error:
        desk.check()
        if wanted.timestamp() > archiving.written:
            raise
        desk.events.emit("warning", error.message, host=server.name)


def _window(name: str, known: Facts) -> Window:
    if known.window is None:
        raise GateRefused(
            f"nothing can be restored: {known.repository.problem or 'there is no base backup'}",
            hint=f"invoke db.pitr.status --env={name}",
        )
    return known.window


def _require_alone(place: Place, archiving: Archiving | None, allowed: bool) -> None:
    own = f"{place.database}_"
    others = [
        name
        for name in (archiving.databases if archiving else ())
        if name != place.database and not name.startswith(own)
    ]
    if others and not allowed:
        raise GateRefused(
            f"the same cluster holds {', '.join(others)}, which would go back to that moment, too",
            hint="restore without --replace, and bring what is needed over with pg_dump; or"
            " --whole-cluster says yes to that",
        )


def _fill(
    desk: Desk,
    place: Place,
    server: Server,
    known: Facts,
    live: Cluster,
    fresh: Cluster,
    wanted: datetime,
) -> tuple[dict[str, Any], float]:
    """Restore and recover the new cluster, and prove it; what was found, and the seconds that
    copying took."""
    environment, events = desk.environment, desk.events
    seconds = environment.backups.timeout
    settings = configuration.settings_path(fresh, environment.name)
    server.write(settings, place.files(fresh)[settings].content)
    line = moment.timeline(wanted, known.departures)
    events.emit("note", f"restoring into {fresh.label}, port {fresh.port}", host=server.name)
    began = time.monotonic()
    try:
        recovery.restore(server, fresh, wanted, timeline=line, timeout=seconds)
    except CommandFailed as error:
        raise DeployError(
            f"{server.name}: the base backup could not be restored:\n{error.output.strip()}",
            hint="the live cluster is as it was; does the repository answer?",
            host=server.name,
        ) from None
    filling = time.monotonic() - began

    def tell(text: str) -> None:
        events.emit("step-progress", text, host=server.name, step="recovery", data={})

    until = recovery.recover(server, fresh, wanted, timeout=seconds, check=desk.check, tell=tell)
    url = _url_at(database_url(environment, desk.secrets), fresh.port)
    found = _look(desk, fresh, url, seconds)
    examine(desk, url, boot=False)
    return {**found, "until": until}, filling


def _look(desk: Desk, fresh: Cluster, url: Secret, seconds: float) -> dict[str, Any]:
    try:
        return dict(desk.tool.run("look", seconds=seconds, url=url.reveal()))
    except DeployError as error:
        if not error.hint:  # it answers, and refuses
            raise
        raise DeployError(
            error.message,
            hint=f"{desk.host.name} must reach port {fresh.port} of the database's machine, and its"
            " pg_hba.conf and listen_addresses let it in there as on the live port",
            host=error.host,
        ) from None


def _url_at(url: str, port: int) -> Secret:
    parts = urlsplit(url)
    login, at, address = parts.netloc.rpartition("@")
    host = address.rpartition(":")[0] if parts.port else address
    return Secret(parts._replace(netloc=f"{login}{at}{host}:{port}").geturl())


def _record(desk: Desk, done: Restored, wanted: datetime) -> None:
    now = time.time()
    live = desk.live.get(desk.host.name)
    record = journal.Record(
        id=entropy.token_hex(8),
        kind="pitr",
        environment=desk.environment.name,
        hosts=(desk.host.name,),
        version=desk.version,
        digest=live.digest if live else "",
        revision="",
        outcome="replaced" if done.before else "restored",
        requested_by=lock.describe_operator(),
        started=now - done.seconds,
        finished=now,
        schema=done.revision,
        steps=(
            {
                "kind": "recovery",
                "seconds": round(done.seconds, 3),
                "target": wanted.timestamp(),
                "cluster": done.cluster.label,
                "before": done.before,
            },
        ),
    )
    journal.append(desk.host, desk.environment.folder, record)


def prune(
    name: str,
    events: Events,
    *,
    dry_run: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> list[Cluster]:
    """Remove the clusters that restores made or replaced; the live one never. Returns them."""
    place = Place.of(name, events)
    with _alone(place.environment, "db.pitr.prune") as check, place.open() as server:
        left = leftovers(name, place.port, server.clusters()[0])
        if dry_run or not left:
            return left
        confirm(f"remove the clusters {', '.join(one.label for one in left)} for good?")
        for cluster in left:
            check()
            recovery.drop(server, cluster, place.port)
        return left


def leftovers(name: str, port: int, clusters: Sequence[Cluster]) -> list[Cluster]:
    """The clusters that restores of an environment made or replaced. Pure."""
    return [one for one in clusters if one.note.get("environment") == name and one.port != port]
