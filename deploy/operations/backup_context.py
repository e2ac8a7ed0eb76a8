"""The context that operations on backups share: hosts, lock, backup container and secrets."""

from __future__ import annotations

import contextlib
import secrets as entropy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy import proxy, secrets
from deploy.backups import catalogue, jobs
from deploy.backups.container import BackupContainer, open_container
from deploy.backups.manifest import Backup
from deploy.backups.stopped_containers import restart_stopped
from deploy.environment.model import load_environment
from deploy.errors import GateRefused
from deploy.operations.host_session import HostSession, open_session
from deploy.operations.live_containers import find_live_container
from deploy.secrets.secret import Secret
from deploy.secrets.sources import load_copy_keys
from deploy.state import journal, lock

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.hosts.host import Host
    from deploy.state.facts import ContainerFacts


@dataclass(frozen=True)
class BackupContext:
    """Open connections and loaded secrets of one operation, which holds the environment's lock."""

    session: HostSession
    host: Host
    """The host that makes and keeps the backups."""
    secrets: secrets.Secrets
    container: BackupContainer
    lease: lock.Lease
    live: Mapping[str, ContainerFacts]
    """The live web container of each host that has one, by the host's name."""
    keys: Mapping[str, tuple[Secret, Secret]]
    """User name and key of each place for copies, by the place's name."""
    releases: tuple[str, ...]
    """Versions that a rollback can reach, the live one first."""

    @property
    def environment(self) -> Environment:
        return self.session.environment

    @property
    def events(self) -> Events:
        return self.session.events

    @property
    def version(self) -> str:
        """The version of the live release; empty if there is none."""
        return next((found.version for found in self.live.values()), "")

    def require_lock(self) -> None:
        """Raise `Locked` if another run has taken the lock."""
        self.lease.require()

    def require_maintenance(self) -> None:
        """Raise `GateRefused` if a web host receives traffic."""
        for config in self.environment.hosts_with("web"):
            found, _ = proxy.read_facts(self.session.hosts[config.name], self.environment)
            if found.running and not found.maintenance:
                name = self.environment.name
                raise GateRefused(
                    f"{config.name} is not in maintenance: writes that it accepts now would be"
                    " lost with the replaced database",
                    hint=f"invoke maintenance.on --env={name}, run this command again, then"
                    f" invoke maintenance.off --env={name}",
                    host=config.name,
                )

    def backups(self) -> list[Backup]:
        """Every complete backup on the host, oldest first."""
        return catalogue.read(self.host, self.environment)

    def back_up(self, reason: str) -> Backup:
        """Make a backup and read its archive to the end; `reason` goes into the manifest."""
        return jobs.back_up(
            self.container,
            self.environment,
            self.backups(),
            host=self.host.name,
            reason=reason,
            release=self.version,
        )

    def record(
        self, kind: str, outcome: str, *, id: str, started: float, schema: str, step: dict[str, Any]
    ) -> None:
        """Append a run with one step to the journal on the database's host.

        `started` is in seconds since the epoch; the run ends now.
        """
        live = self.live.get(self.host.name)
        record = journal.Record(
            id=id,
            kind=kind,
            environment=self.environment.name,
            hosts=(self.host.name,),
            version=self.version,
            digest=live.digest if live else "",
            revision="",
            outcome=outcome,
            requested_by=lock.describe_operator(),
            started=started,
            finished=time.time(),
            schema=schema,
            steps=(step,),
        )
        journal.append(self.host, self.environment.folder, record)


@contextlib.contextmanager
def open_backup_context(name: str, events: Events, task: str) -> Iterator[BackupContext]:
    """Connect, take the environment's lock for `task`, and start the backup container."""
    environment = load_environment(name)
    values = secrets.load_secrets(environment, registries=False)
    keys = load_copy_keys(environment)
    every = {f"{name} {n}": key for name, pair in keys.items() for n, key in enumerate(pair)}
    events.redact = secrets.Secrets({**values.values, **every}).redact
    with open_session(environment, events) as session, contextlib.ExitStack() as stack:
        session.require_all()
        host = session.hosts[environment.database_host.name]
        run_id = entropy.token_hex(4)
        holder = lock.Holder.here(run_id, task)
        lock_host = session.lock_host or host
        lease = stack.enter_context(lock.hold(lock_host, environment.folder, holder))
        restart_stopped(host, environment)
        facts = session.settled_facts(None, lease.require)
        container = stack.enter_context(
            open_container(host, environment, values, events, run_id=run_id, check=lease.require)
        )
        live = {
            h.name: found for h in facts.hosts.values() if (found := find_live_container(h, "web"))
        }
        versions = [record.version for record in reversed(facts.history) if record.live]
        releases = tuple(dict.fromkeys(versions))[: environment.retention.releases]
        yield BackupContext(session, host, values, container, lease, live, keys, releases)
