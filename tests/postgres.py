"""A throw-away PostgreSQL server from this machine's own packages."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql


def server_programs() -> Path:
    """The folder of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    raise RuntimeError("no PostgreSQL server programs here; try: apt-get install postgresql")


class PostgresServer:
    """Its own data, its own socket folder, no TCP port, gone when stopped.

    PostgreSQL refuses to run as root, so root runs it as ``postgres`` or ``nobody``.
    """

    def __init__(self) -> None:
        self._programs = server_programs()
        self._home = Path(tempfile.mkdtemp(prefix="amani-pg-"))
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            users = {user.pw_name for user in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in users else "nobody")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._data = self._home / "data"
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Make the cluster if it is not there, and serve."""
        if not self._data.exists():
            self._run("initdb", "-A", "trust", "-U", "amani", "-E", "UTF8", "--no-sync")
        options = f"-k {self._home} -c listen_addresses= -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-w", "-l", str(self._home / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop serving; *mode* ``immediate`` is a crash."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stop, and leave nothing behind."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The URL of *database*."""
        return f"postgresql://amani@/{database}?host={self._home}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, by copy of *template*; its name."""
        name = f"amani_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", str(self._data), *words],
            cwd=self._home,
            # No pipe: the server would inherit it and keep the reader waiting.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=60,
            **self._as,  # type: ignore[call-overload]
        )
        if done.returncode:
            log = self._home / "log"
            raise RuntimeError(f"{program} failed: {log.read_text() if log.exists() else ''}")
