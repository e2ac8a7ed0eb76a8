"""Requests about backups: make, list, prove, restore, rehearse and thin out."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets as entropy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy import proxy, secrets
from deploy.backups import catalogue, retention, work
from deploy.backups.manifest import LEVELS, Backup, Level, Proof
from deploy.backups.standstill import resume, standstill
from deploy.backups.tool import Tool, database_url, open_tool
from deploy.environment.model import load_environment
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.operations.host_session import HostSession, open_session
from deploy.operations.live_containers import find_live_container
from deploy.secrets.secret import Secret
from deploy.secrets.sources import load_copy_keys
from deploy.state import containers, journal, lock
from deploy.state.release import ImageRef

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.environment.sections import CopyConfig
    from deploy.events import Events
    from deploy.hosts.host import Host
    from deploy.state.facts import ContainerFacts

KEY_HINT = "put the path of an age private key into AMANI_AGE_IDENTITY"


@dataclass(frozen=True)
class Desk:
    """What a request about backups works with, under the environment's lock."""

    session: HostSession
    host: Host
    secrets: secrets.Secrets
    tool: Tool
    lease: lock.Lease
    live: Mapping[str, ContainerFacts]
    """The live web container of each host that has one."""
    keys: Mapping[str, tuple[Secret, Secret]]
    """What opens the places of copies, by their names."""
    releases: tuple[str, ...]
    """Versions that may be gone back to, the live one first."""

    @property
    def environment(self) -> Environment:
        """The environment."""
        return self.session.environment

    @property
    def events(self) -> Events:
        """What hears of it."""
        return self.session.events

    @property
    def version(self) -> str:
        """The version that serves; empty where none does."""
        return next((found.version for found in self.live.values()), "")

    def check(self) -> None:
        """Raise `Locked` where the lock was taken away."""
        self.lease.require()

    def backups(self) -> list[Backup]:
        """Every backup, oldest first."""
        return catalogue.read(self.host, self.environment)


@contextlib.contextmanager
def open_desk(name: str, events: Events, what: str) -> Iterator[Desk]:
    """Everything that a request about backups works with, and the environment's lock."""
    environment = load_environment(name)
    values = secrets.load_secrets(environment, registries=False)
    keys = load_copy_keys(environment)
    every = {f"{name} {n}": key for name, pair in keys.items() for n, key in enumerate(pair)}
    events.redact = secrets.Secrets({**values.values, **every}).redact
    with open_session(environment, events) as session, contextlib.ExitStack() as stack:
        session.require_all()
        host = session.hosts[environment.database_host.name]
        run_id = entropy.token_hex(4)
        holder = lock.Holder.here(run_id, what)
        place = session.lock_host or host
        lease = stack.enter_context(lock.hold(place, environment.folder, holder))
        resume(host, environment)
        facts = session.settled_facts(None, lease.require)
        tool = stack.enter_context(
            open_tool(host, environment, values, events, run_id=run_id, check=lease.require)
        )
        live = {
            h.name: found for h in facts.hosts.values() if (found := find_live_container(h, "web"))
        }
        versions = [record.version for record in reversed(facts.history) if record.live]
        releases = tuple(dict.fromkeys(versions))[: environment.retention.releases]
        yield Desk(session, host, values, tool, lease, live, keys, releases)


def listing(name: str, events: Events) -> list[Backup]:
    """Every backup of an environment, oldest first."""
    environment = load_environment(name)
    with open_session(environment, events) as session:
        host = session.hosts.get(environment.database_host.name)
        if host is None:
            raise session.errors[environment.database_host.name]
        return catalogue.read(host, environment)


def back_up(name: str, events: Events) -> Backup:
    """Make a backup, read it to its end, and copy it to every place for copies.

    Raises `DeployError` where a copy could not be made; the backup on the host is whole then.
    """
    with open_desk(name, events, "db.backup") as desk:
        backup = _make(desk, "asked")
        _copy(desk, backup, desk.environment.backups.copies)
        return backup


def copy(name: str, events: Events, *, id: str = "") -> Backup:
    """Copy a backup, the newest by default, to every place for copies that lacks it."""
    with open_desk(name, events, "db.copy") as desk:
        backup = catalogue.pick(desk.backups(), id, name)
        if not desk.environment.backups.copies:
            raise UsageError(f"{name} names no place for copies", hint="`backups.copies`")
        _copy(desk, backup, desk.environment.backups.copies)
        return backup


def fetch(name: str, events: Events, *, id: str = "", place: str = "") -> str:
    """Bring a backup back from a place for copies (the newest, the first place); its id."""
    with open_desk(name, events, "db.fetch") as desk:
        places = [p for p in desk.environment.backups.copies if place in ("", p.name)]
        if not places:
            raise UsageError(f"{name} has no place for copies called {place!r}")
        seconds, target = desk.environment.backups.timeout, _place(desk, places[0])
        there = sorted(desk.tool.run("copied", seconds=seconds, place=target))
        if not there or id not in ("", *there):
            newest = ", ".join(there[-5:]) or "none"
            raise UsageError(f"{places[0].name} has no backup {id}", hint=f"it has: {newest}")
        chosen = id or there[-1]
        if chosen not in {found.manifest.id for found in desk.backups()}:
            desk.tool.run("fetch", seconds=seconds, place=target, id=chosen)
        return chosen


def _copy(desk: Desk, backup: Backup, places: Sequence[CopyConfig]) -> None:
    failed = []
    for place in places:
        try:
            desk.tool.run(
                "copy",
                seconds=desk.environment.backups.timeout,
                place=_place(desk, place),
                id=backup.manifest.id,
            )
        except DeployError as error:
            failed.append(f"- {place.name}: {error.message}")
    if failed:
        name, id = desk.environment.name, backup.manifest.id
        raise DeployError(
            f"backup {id} is whole on {desk.host.name}, but not everywhere it should be:\n"
            + "\n".join(failed),
            hint=f"when the place answers again: invoke db.copy --env={name} --id={id}",
        )


def _place(desk: Desk, place: CopyConfig) -> dict[str, Any]:
    """What the tool needs to know of a place, its keys among it."""
    username, key = (secret.reveal() for secret in desk.keys[place.name])
    said = place.model_dump(mode="json", exclude={"username", "key"})
    path = f"{place.path.rstrip('/')}/{desk.environment.name}"
    return {**said, "path": path, "username": username, "key": key}


def _make(desk: Desk, reason: str) -> Backup:
    return work.make(
        desk.tool,
        desk.environment,
        desk.backups(),
        host=desk.host.name,
        reason=reason,
        release=desk.version,
    )


def verify(name: str, events: Events, *, id: str = "", level: Level = "restored") -> Proof:
    """Prove a backup, the newest by default, up to a level, and record that it was reached."""
    if level not in LEVELS:
        raise UsageError(f"there is no level {level!r}", hint=f"levels: {', '.join(LEVELS)}")
    with open_desk(name, events, "db.verify") as desk:
        backup = catalogue.pick(desk.backups(), id, name)
        return _verify(desk, backup, level, _identity(backup))


def _verify(desk: Desk, backup: Backup, level: Level, identity: str) -> Proof:
    started = time.monotonic()
    if level in ("hash", "read"):
        work.check(desk.tool, desk.environment, backup, level, identity)
    else:
        scratch = _name(desk, "restored")
        work.restore(desk.tool, desk.environment, backup, scratch, identity)
        try:
            _examine(desk, scratch, boot=level == "booted")
        finally:
            desk.tool.run("drop", seconds=60, name=scratch)
    proof = Proof(level, time.time(), round(time.monotonic() - started, 3))
    catalogue.record(desk.host, desk.environment, backup, proof)
    catalogue.publish(desk.host, desk.environment)
    return proof


def _identity(backup: Backup) -> str:
    """The operator's private key, as text; empty where the backup needs none."""
    from deploy.secrets.age import identity_text

    if not backup.manifest.encrypted:
        return ""
    found = identity_text()
    if not found:
        raise UsageError(f"backup {backup.manifest.id} is encrypted", hint=KEY_HINT)
    return found


def _name(desk: Desk, kind: str) -> str:
    live = str(desk.tool.run("describe", seconds=60)["name"])
    return f"{live}_{kind}_{work.stamp()}"


def _examine(desk: Desk, database: str, *, boot: bool) -> None:
    url = urlsplit(database_url(desk.environment, desk.secrets))
    folder = "" if "sqlite" not in url.scheme else url.path.rpartition("/")[0]
    suffix = "" if "sqlite" not in url.scheme else "." + url.path.rpartition(".")[2]
    path = f"{folder}/{database}{suffix}"
    examine(desk, Secret(url._replace(path=path).geturl()), boot=boot)


def examine(desk: Desk, url: Secret, *, boot: bool) -> None:
    """Let the live image's own check look at a restored database, and, to `boot`, start on it."""
    live = desk.live.get(desk.host.name) or next(iter(desk.live.values()), None)
    if live is None:
        if boot:
            raise GateRefused(
                "nothing serves, so there is no image to start on the restored database"
            )
        desk.events.emit("warning", "nothing serves, so no image could check the content")
        return
    with _service(desk, live, url) as run:
        if desk.environment.backups.check_command:
            run(desk.environment.backups.check_command, _await_end)
        if boot:
            run(desk.environment.role("web").command, _await_readiness)


@contextlib.contextmanager
def _service(
    desk: Desk, live: ContainerFacts, url: Secret
) -> Iterator[Callable[[tuple[str, ...] | None, Callable[[Desk, str, str], None]], None]]:
    """Runs commands of the live image whose database is the restored one."""
    environment, host = desk.environment, desk.host
    values = secrets.Secrets({**desk.secrets.values, environment.backups.secret: url})
    image = ImageRef(
        environment.image.repository, live.digest, registered=environment.image.registered
    )
    before = secrets.generations(host, environment, values)[1]
    generation = secrets.deliver(host, environment, values, image=image.reference)

    def run(command: tuple[str, ...] | None, wait: Callable[[Desk, str, str], None]) -> None:
        spec = containers.make_one_off_container(
            environment,
            image,
            generation,
            purpose="examine",
            run_id=entropy.token_hex(3),
            command=command or (),
        )
        spec = dataclasses.replace(spec, command=command)
        container = host.engine.create(spec)
        try:
            host.engine.start(container)
            wait(desk, container, spec.name)
        finally:
            host.engine.remove(container)

    try:
        yield run
    finally:
        secrets.prune(host, environment, set(before))


def _await_end(desk: Desk, container: str, name: str) -> None:
    status = desk.host.engine.wait(container, desk.environment.backups.timeout)
    if status:
        said = desk.events.redact(desk.host.engine.logs(container, tail=20)).strip()
        command = " ".join(desk.environment.backups.check_command)
        raise DeployError(
            f"`{command}` on the restored database ended with {status}:\n{said}",
            hint="what was backed up was not right: look at the live database, too",
        )


def _await_readiness(desk: Desk, container: str, name: str) -> None:
    health = desk.environment.health
    url = f"http://{name}:{health.port}{health.path}"
    seconds = desk.environment.timeouts.boot
    desk.tool.run("ask", seconds=seconds + 60, page=url, patience=seconds)


@dataclass(frozen=True)
class Restored:
    """Where a restore went; `before`: what was live before is called now, `none` if it was gone."""

    backup: Backup
    database: str
    before: str = ""
    seconds: float = 0.0


def restore(
    name: str,
    events: Events,
    *,
    id: str = "",
    replace: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> Restored:
    """Restore a backup, the newest by default, into a new database, strictly and compared.

    With `replace` it becomes the live one: only in maintenance, after `confirm`, and after a backup
    of what is there; that stays, renamed, until `db.prune --databases`.
    """
    with open_desk(name, events, "db.restore") as desk:
        backup = catalogue.pick(desk.backups(), id, name)
        identity = _identity(backup)
        if replace:
            require_maintenance(desk)
            confirm(f"replace the database of {name} by backup {backup.manifest.id}?")
        started = time.monotonic()
        # For as long as it takes nobody migrates, `flask db upgrade` by hand included.
        desk.tool.run("hold", seconds=60)
        fresh = _name(desk, "restored")
        work.restore(desk.tool, desk.environment, backup, fresh, identity)
        if not replace:
            return Restored(backup, fresh, seconds=time.monotonic() - started)
        try:
            _examine(desk, fresh, boot=False)
            there = bool(desk.tool.run("describe", seconds=60)["exists"])
            if there:
                _make(desk, "restore")
            old = fresh.replace("_restored_", "_before_")
            _swap(desk, fresh, old)
        except BaseException:
            # After the swap nothing has this name any more.
            with contextlib.suppress(DeployError):
                desk.tool.run("drop", seconds=60, name=fresh)
            raise
        return Restored(backup, fresh, old if there else "none", time.monotonic() - started)


def require_maintenance(desk: Desk) -> None:
    """Raise `GateRefused` where a web host serves."""
    for config in desk.environment.hosts_with("web"):
        found, _ = proxy.read_facts(desk.session.hosts[config.name], desk.environment)
        if found.running and not found.maintenance:
            name = desk.environment.name
            raise GateRefused(
                f"{config.name} serves: what people do now would be lost with the old database",
                hint=f"invoke maintenance.on --env={name}, then this again, then maintenance.off",
                host=config.name,
            )


def _swap(desk: Desk, fresh: str, old: str) -> None:
    """Rename; who has SQLite's file open must be stopped for that."""
    sqlite = database_url(desk.environment, desk.secrets).startswith("sqlite")
    alone = standstill(desk.host, desk.environment) if sqlite else contextlib.nullcontext()
    with alone:
        desk.tool.run("swap", seconds=120, name=fresh, old=old)


@dataclass(frozen=True)
class Drill:
    """What a rehearsal of the worst day measured, in seconds."""

    backup: Backup
    recovery: float
    """From the archive to a service that is ready on it: the RTO."""
    whole: float


def drill(name: str, events: Events) -> Drill:
    """Back up, restore into a scratch database, prove it, start the service on it; timed."""
    with open_desk(name, events, "db.drill") as desk:
        started = time.time()
        backup = _make(desk, "drill")
        proof = _verify(desk, backup, "booted", _identity(backup))
        result = Drill(backup, proof.seconds, time.time() - started)
        live = desk.live.get(desk.host.name)
        record = journal.Record(
            id=backup.manifest.id,
            kind="drill",
            environment=name,
            hosts=(desk.host.name,),
            version=desk.version,
            digest=live.digest if live else "",
            revision="",
            outcome="proved",
            requested_by=lock.describe_operator(),
            started=started,
            finished=time.time(),
            schema=backup.manifest.revision,
            steps=({"kind": "recovery", "seconds": proof.seconds},),
        )
        journal.append(desk.host, desk.environment.folder, record)
        return result


def prune(
    name: str,
    events: Events,
    *,
    dry_run: bool = False,
    databases: bool = False,
    confirm: Callable[[str], None] = lambda question: None,
) -> tuple[list[Backup], list[str]]:
    """Remove the backups that no rule keeps, and with `databases` what restores left behind.

    Returns both; a dry run only says what would go.
    """
    with open_desk(name, events, "db.prune") as desk:
        gone = retention.prunable(desk.backups(), desk.environment.backups.keep, desk.releases)
        left = list(desk.tool.run("describe", seconds=60)["replaced"]) if databases else []
        if dry_run:
            return gone, left
        if left:
            confirm(f"remove the databases {', '.join(left)} for good?")
        for backup in gone:
            catalogue.remove(desk.host, desk.environment, backup)
        for database in left:
            desk.tool.run("drop", seconds=60, name=database)
        catalogue.publish(desk.host, desk.environment)
        return gone, left
