"""A throw-away PostgreSQL server from this machine's own packages."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.errors import DeployError, UsageError
from workshop.bench import leftovers

PATIENCE = 600.0
"""Seconds that one program may take; the largest inserts a million rows."""


def server_programs() -> Path:
    """The folder of the newest installed server. Raises `UsageError` if none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    raise UsageError(
        "PostgreSQL's server programs are not installed", hint="apt-get install postgresql"
    )


class PostgresServer:
    """A PostgreSQL server in a temporary folder, with a socket there and no TCP port.

    PostgreSQL refuses to run as root, so root runs it as `postgres` or `nobody`. `settings` are
    settings of the server; all others have the distribution's defaults.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.programs = server_programs()
        self._settings = {"listen_addresses": "", "max_connections": "200", **(settings or {})}
        self._home = leftovers.folder("amani-pg-")
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            users = {user.pw_name for user in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in users else "nobody")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._data = self._home / "data"
        self.log = self._home / "log"

    def start(self) -> None:
        """Create the cluster if it does not exist, and start the server."""
        if not self._data.exists():
            self._run("initdb", "-A", "trust", "-U", "amani", "-E", "UTF8", "--no-sync")
        given = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        self._run("pg_ctl", "-w", "-l", str(self.log), "-o", f"-k {self._home} {given}", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `mode` `immediate` simulates a crash."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stop the server and remove its data and its folder."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The URL of `database` over the server's socket."""
        return f"postgresql://amani@/{database}?host={self._home}"

    def execute(self, statements: str, database: str = "postgres") -> None:
        """Run `statements` in one transaction. Raises `DeployError` if one fails."""
        self._psql(database, "--single-transaction", given=statements)

    def tidy(self, database: str = "postgres") -> None:
        """Vacuum and analyse, so that no figure waits for the server to do it."""
        self._psql(database, given="VACUUM ANALYZE")

    def configure(self, name: str, value: str) -> None:
        """Change a setting of all sessions, the running ones too."""
        given = f"ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf()"
        self._psql("postgres", given=given)

    def rows(self, query: str, database: str = "postgres") -> list[dict[str, Any]]:
        """The rows of `query`, as JSON values by column. Raises `DeployError` if it fails."""
        wrapped = " ".join(("SELECT row_to_json(q) FROM (", query, ") q"))
        found = self._psql(database, given=wrapped)
        return [json.loads(line) for line in found.split("\n") if line]

    def _psql(self, database: str, *options: str, given: str) -> str:
        argv = [str(self.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", *options]
        done = subprocess.run(
            [*argv, self.url(database)],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise DeployError(f"psql failed: {done.stderr[-2000:]}")
        return done.stdout

    def _run(self, program: str, *words: str) -> None:
        argv: Sequence[str] = [str(self.programs / program), "-D", str(self._data), *words]
        done = subprocess.run(
            argv,
            cwd=self._home,
            env={**os.environ, leftovers.MARK: leftovers.owner()},
            # No pipe: the server would inherit it and keep the reader waiting.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=60,
            **self._as,
        )
        if done.returncode:
            said = self.log.read_text()[-2000:] if self.log.exists() else ""
            raise DeployError(f"{program} failed: {said}")
