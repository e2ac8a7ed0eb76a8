"""The machine that PostgreSQL runs on: its clusters, asked as their superuser, and pgBackRest."""

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
    Facts,
    Repository,
    parse_archiving,
    parse_clusters,
    parse_repository,
)

if TYPE_CHECKING:
    from deploy.environment.sections import PitrConfig
    from deploy.hosts.host import CommandResult, Host, HostTimeouts

USER = "postgres"
"""Whom Debian lets own clusters."""
_CLUSTERS = (
    'date +%s.%N; for f in /etc/postgresql/*/*/"$1"; do [ -f "$f" ] || continue; '
    'echo "${f%/*}"; tr -d "\\n" <"$f"; echo; done; echo; pg_lsclusters --json'
)
# Renamed into its place, so that no reader sees a part of it.
_WRITE = (
    'umask 077; mkdir -p "${1%/*}" && chmod 755 "${1%/*}"; cat >"$1.new" && chown "$2" "$1.new" '
    '&& chmod "$3" "$1.new" && sync "$1.new" && mv -T "$1.new" "$1"'
)


class Server:
    """A Debian or Ubuntu machine with PostgreSQL, where one may be root.

    Methods raise `CommandFailed` with the program's own words where it fails, and
    `HostUnreachable` where the machine does not answer.
    """

    def __init__(self, host: Host, *, sudo: bool, stanza: str, timeout: float) -> None:
        self._host, self._sudo = host, ("sudo", "-n") if sudo else ()
        self.stanza, self._timeout = stanza, timeout

    @property
    def name(self) -> str:
        """What it is called in every output."""
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
        """Run a command as root, or as another user."""
        # In a folder that everyone may enter: else programs complain of the one of who logged in.
        other = () if user == "root" else ("runuser", "-u", user, "--")
        words = (*self._sudo, *other, "env", "-C", "/", "LC_ALL=C", *argv)
        return self._host.run(words, stdin=stdin, timeout=timeout, check=check)

    def script(self, text: str, *words: str, timeout: float | None = None) -> str:
        """What a shell script, run as root with these words, printed."""
        return self.run(("sh", "-euc", text, "amani", *words), timeout=timeout).text

    def write(self, path: str, content: str, *, secret: bool = False) -> None:
        """Write a file that PostgreSQL's user may read, and where it is `secret` nobody else."""
        argv = ("sh", "-euc", _WRITE, "write", path, f"root:{USER}", "640" if secret else "644")
        self.run(argv, stdin=content.encode())

    def read(self, path: str) -> str | None:
        """The content of a file, or None where there is none."""
        argv = ("sh", "-c", '[ ! -e "$1" ] || { echo; cat -- "$1"; }', "read", path)
        text = self.run(argv).text
        return text[1:] if text else None

    def query(self, cluster: Cluster, sql: str, *, database: str = "postgres") -> Any:
        """The one JSON value that a query finds. Raises `CommandFailed` where the cluster does not
        answer."""
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

    def clusters(self) -> tuple[tuple[Cluster, ...], float]:
        """Every cluster, and the machine's time."""
        result = self.run(("sh", "-c", _CLUSTERS, "clusters", configuration.NOTE), check=False)
        if result.status:
            raise UsageError(
                f"{self.name}: PostgreSQL is not there as a package of Debian or Ubuntu: "
                f"{result.stderr.decode(errors='replace').strip()}",
                hint="`pg_lsclusters` (postgresql-common) must show its clusters; a PostgreSQL in a"
                " container is not archived by this",
                host=self.name,
            )
        now, *lines = result.text.splitlines()
        end = lines.index("")
        notes = dict(zip(lines[0:end:2], lines[1:end:2], strict=False))
        return parse_clusters("\n".join(lines[end + 1 :]), notes), float(now)

    def facts(self, port: int, *, repository: bool = True) -> Facts:
        """What is. Without `repository` that is not asked, which may be far away."""
        clusters, now = self.clusters()
        found = Facts("", clusters, port, now, None, Repository())
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
            said = (result.stderr or result.stdout).decode(errors="replace").strip()
            return Repository(problem=said)
        return parse_repository(result.text)


@contextlib.contextmanager
def open_server(
    stanza: str, config: PitrConfig, timeout: float, timeouts: HostTimeouts
) -> Iterator[Server]:
    """The database's machine, open; `timeout` seconds for what pgBackRest does there.

    Raises `UsageError` where whoever logs in may not become root.
    """
    host = connect(config.server, timeouts)
    try:
        sudo = host.run(("id", "-u")).text.strip() != "0"
        server = Server(host, sudo=sudo, stanza=stanza, timeout=timeout)
        if sudo:
            _require_sudo(server, config.server.user)
        yield server
    finally:
        with contextlib.suppress(DeployError, OSError):
            host.close()


def _require_sudo(server: Server, user: str) -> None:
    try:
        server.run(("true",))
    except CommandFailed as error:
        raise UsageError(
            f"{server.name}: {user} may not become root there: {error.output.strip()}",
            hint="name root as `backups.pitr.server.user`, or give that user sudo without password",
            host=server.name,
        ) from None
