"""The configuration and the lock that operations on point-in-time recovery share."""

from __future__ import annotations

import contextlib
import secrets as entropy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy import secrets
from deploy.backups.container import database_url
from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.execute import interrupts
from deploy.hosts.connect import connect
from deploy.pitr import configuration
from deploy.pitr.server import DatabaseServer, open_server
from deploy.secrets.secret import Secret
from deploy.secrets.sources import load_repository_keys
from deploy.state import lock

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.environment.sections import PitrConfig
    from deploy.events import Events
    from deploy.pitr.facts import Cluster


@dataclass(frozen=True)
class RecoveryContext:
    """An environment whose database is archived: its configuration, and the secrets for it."""

    environment: Environment
    config: PitrConfig
    keys: Mapping[str, Secret]
    """Secrets of the repository, by their names in the environment's file."""
    port: int
    """The port of the live cluster, from the database's URL."""
    database: str
    """The name of the database, from its URL."""

    @classmethod
    def load(cls, name: str, events: Events) -> RecoveryContext:
        """Read the environment's file and its secrets.

        Raises `UsageError` if the file has no `backups.pitr`, or the database is no PostgreSQL.
        """
        environment = load_environment(name)
        config = environment.backups.pitr
        if config is None:
            raise UsageError(
                f"{name} has no configuration for point-in-time recovery",
                hint="add `backups.pitr` to its file (docs/environments.md); a managed PostgreSQL"
                " has its own recovery: docs/backups.md",
            )
        values = secrets.load_secrets(environment, registries=False)
        keys = load_repository_keys(environment)
        events.redact = secrets.Secrets({**values.values, **keys}).redact
        port, database = port_and_database(environment, values)
        return cls(environment, config, keys, port, database)

    @contextlib.contextmanager
    def open(self) -> Iterator[DatabaseServer]:
        """Connect to the machine that PostgreSQL runs on."""
        environment = self.environment
        seconds = environment.backups.timeout
        with open_server(environment.name, self.config, seconds, environment.timeouts) as server:
            yield server

    def files(self, cluster: Cluster) -> dict[str, configuration.ConfigurationFile]:
        """The files that a cluster needs to archive, by path."""
        return configuration.files(self.environment, cluster, self.config, self.keys)

    @contextlib.contextmanager
    def locked(self, task: str) -> Iterator[Callable[[], None]]:
        """Hold the environment's lock for `task`.

        Yields a function that raises `Locked` once another run has taken the lock.
        """
        environment = self.environment
        host = connect(environment.lock_host, environment.timeouts)
        holder = lock.Holder.here(entropy.token_hex(4), task)
        try:
            with (
                interrupts.handle(by=interrupts.raise_interrupt),
                lock.hold(host, environment.folder, holder) as lease,
            ):
                yield lambda: _require(lease)
        finally:
            with contextlib.suppress(DeployError, OSError):
                host.close()


def _require(lease: lock.Lease) -> None:
    lease.confirm()
    lease.require()


def port_and_database(environment: Environment, values: secrets.Secrets) -> tuple[int, str]:
    """Port and name of the database, from its URL.

    Raises `UsageError` if it is no PostgreSQL, or the port is no number.
    """
    url = urlsplit(database_url(environment, values))
    if not url.scheme.startswith("postgres"):
        raise UsageError(
            f"the database of {environment.name} is no PostgreSQL: its URL begins with"
            f" {url.scheme}",
            hint="only PostgreSQL has point-in-time recovery; SQLite has `invoke db.backup`",
        )
    try:
        return url.port or 5432, url.path.strip("/") or url.username or ""
    except ValueError:
        raise UsageError(
            f"the port in {environment.backups.secret} is not a number from 0 to 65535",
            hint="the form is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from None
