"""The machine that PostgreSQL runs on: its files, its clusters and pgBackRest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deploy.errors import CommandFailed, DeployError, UsageError
from deploy.hosts.connect import connect
from deploy.pitr import configuration, queries
from deploy.pitr.facts import (
    Cluster,
    ClusterFacts,
    Repository,
    parse_archiving,
    parse_clusters,
    parse_repository,
)

if TYPE_CHECKING:
    from deploy.environment.sections import PitrConfig
    from deploy.hosts.host import CommandResult, Host, HostTimeouts

USER = "postgres"
"""The user that owns the clusters on Debian."""
_CLUSTERS = (
    'date +%s.%N; for f in /etc/postgresql/*/*/"$1"; do [ -f "$f" ] || continue; '
    'echo "${f%/*}"; tr -d "\\n" <"$f"; echo; done; echo; pg_lsclusters --json'
)
# Renamed when it is complete, so that no reader sees a part of it.
_WRITE = (
    'umask 077; mkdir -p "${1%/*}" && chmod 755 "${1%/*}"; cat >"$1.new" && chown "$2" "$1.new" '
    '&& chmod "$3" "$1.new" && sync "$1.new" && mv -T "$1.new" "$1"'
)


class DatabaseServer:
    """A Debian or Ubuntu machine with PostgreSQL, on which the user is root or can become root.

    Methods raise `CommandFailed` with the output of a command that fails, and
    `HostUnreachable` if the machine does not answer.
    """

    def __init__(self, host: Host, *, sudo: bool, stanza: str, timeout: float) -> None:
        self._host, self._sudo = host, ("sudo", "-n") if sudo else ()
        self.stanza, self._timeout = stanza, timeout

    @property
    def name(self) -> str:
        return self._host.name

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a command as root or as another user."""
        # In a folder that every user can enter: programs warn about a home that they cannot read.
        other = () if user == "root" else ("runuser", "-u", user, "--")
        command = (*self._sudo, *other, "env", "-C", "/", "LC_ALL=C", *argv)
        return self._host.run(command, stdin=stdin, timeout=timeout, check=check)

    def script(self, text: str, *arguments: str, timeout: float | None = None) -> str:
        """Run a shell script as root with arguments, and return its output."""
        return self.run(("sh", "-euc", text, "amani", *arguments), timeout=timeout).text

    def write(self, path: str, content: str, *, secret: bool = False) -> None:
        """Write a file that PostgreSQL's user can read; a `secret` one no other user."""
        argv = ("sh", "-euc", _WRITE, "write", path, f"root:{USER}", "640" if secret else "644")
        self.run(argv, stdin=content.encode())

    def read(self, path: str) -> str | None:
        """The content of a file, or None if it does not exist."""
        argv = ("sh", "-c", '[ ! -e "$1" ] || { echo; cat -- "$1"; }', "read", path)
        text = self.run(argv).text
        return text[1:] if text else None

    def query(self, cluster: Cluster, sql: str, *, database: str = "postgres") -> Any:
        """The JSON value that a query returns, or None.

        Raises `CommandFailed` if the cluster does not answer.
        """
        argv = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", cluster.socket]
        argv += ["-p", str(cluster.port), "-d", database]
        text = self.run(argv, user=USER, stdin=sql.encode()).text
        return json.loads(text) if text.strip() else None

    def pgbackrest(
        self, command: str, *options: str, timeout: float = 0.0, check: bool = True
    ) -> CommandResult:
        """Run a command of pgBackRest on the environment's stanza."""
        path = configuration.config_path(self.stanza)
        argv = ("pgbackrest", f"--config={path}", f"--stanza={self.stanza}", *options, command)
        return self.run(argv, user=USER, timeout=timeout or self._timeout, check=check)

    @contextlib.contextmanager
    def explaining(
        self, text: str, *, hint: str = "", kind: type[DeployError] = DeployError
    ) -> Iterator[None]:
        """Raise `kind` with the text and the command's output if a command in the block fails."""
        try:
            yield
        except CommandFailed as error:
            raise kind(
                f"{self.name}: {text}:\n{error.output.strip()}", hint=hint, host=self.name
            ) from None

    def clusters(self) -> tuple[tuple[Cluster, ...], float]:
        """Every cluster, and the machine's clock in seconds since the epoch.

        Raises `UsageError` if PostgreSQL is not a Debian or Ubuntu package there.
        """
        result = self.run(("sh", "-c", _CLUSTERS, "clusters", configuration.NOTE), check=False)
        if result.status:
            raise UsageError(
                f"{self.name}: PostgreSQL's clusters cannot be listed:"
                f" {result.stderr.decode(errors='replace').strip()}",
                hint="`pg_lsclusters` (postgresql-common) must list them: PostgreSQL must be a"
                " Debian or Ubuntu package, not a container",
                host=self.name,
            )
        now, *lines = result.text.splitlines()
        end = lines.index("")
        notes = dict(zip(lines[0:end:2], lines[1:end:2], strict=False))
        return parse_clusters("\n".join(lines[end + 1 :]), notes), float(now)

    def facts(self, port: int, *, repository: bool = True) -> ClusterFacts:
        """The machine's facts. Without `repository` no connection to the repository is made."""
        clusters, now = self.clusters()
        found = ClusterFacts("", clusters, port, now, None, Repository())
        archiving = None
        if found.live is not None and found.live.running:
            with contextlib.suppress(CommandFailed):
                archiving = parse_archiving(self.query(found.live, queries.ARCHIVING))
        version = self.run(("sh", "-c", "pgbackrest version || true")).text.strip()
        tool = version.rpartition(" ")[2]
        configured = self.read(configuration.config_path(self.stanza))
        held = self._repository() if repository and tool and configured else Repository()
        return replace(found, tool=tool, archiving=archiving, repository=held)

    def _repository(self) -> Repository:
        result = self.pgbackrest("info", "--output=json", "--io-timeout=5", timeout=60, check=False)
        if result.status:
            problem = (result.stderr or result.stdout).decode(errors="replace").strip()
            return Repository(problem=problem)
        return parse_repository(result.text)


@contextlib.contextmanager
def open_server(
    stanza: str, config: PitrConfig, timeout: float, timeouts: HostTimeouts
) -> Iterator[DatabaseServer]:
    """Connect to the database's machine; `timeout` is in seconds, for commands of pgBackRest.

    Raises `UsageError` if the user there cannot become root.
    """
    host = connect(config.server, timeouts)
    try:
        sudo = host.run(("id", "-u")).text.strip() != "0"
        server = DatabaseServer(host, sudo=sudo, stanza=stanza, timeout=timeout)
        if sudo:
            with server.explaining(
                f"{config.server.user} cannot become root",
                hint="set `backups.pitr.server.user` to root, or give that user passwordless sudo",
                kind=UsageError,
            ):
                server.run(("true",))
        yield server
    finally:
        with contextlib.suppress(DeployError, OSError):
            host.close()
