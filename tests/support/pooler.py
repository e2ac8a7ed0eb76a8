"""A temporary PgBouncer."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.waiting import eventually


class Pooler:
    """A pooler in transaction mode for the server of `url`, on a Unix socket."""

    def __init__(self, url: str, connections: int, **settings: str) -> None:
        if not shutil.which("pgbouncer"):
            raise RuntimeError("no PgBouncer here; try: apt-get install pgbouncer")
        self._home = Path(tempfile.mkdtemp(prefix="amani-pgb-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer does not run as root.
            user = pwd.getpwnam("postgres")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        told = conninfo_to_dict(url)
        where = ("host", "port", "password")
        server = " ".join(f"{name}={told[name]}" for name in where if name in told)
        names = {
            "listen_addr": "",
            "unix_socket_dir": str(self._home),
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": str(connections),
            "max_client_conn": "500",
            "logfile": str(self._home / "log"),
            **settings,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in names.items())
        self._file = self._home / "pgbouncer.ini"
        self._file.write_text(
            f"[databases]\n* = {server} user={told['user']}\n[pgbouncer]\n{lines}\n"
        )
        self.url = f"postgresql://{told['user']}@:6432/{told['dbname']}?host={self._home}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the pooler, and wait until it answers."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = ["pgbouncer", str(self._file)]
        self._process = subprocess.Popen(words, cwd=self._home, **quiet, **self._as)
        eventually(self._answers)

    def remove(self) -> None:
        """Stop the pooler and delete its folder."""
        if self._process:
            self._process.kill()
            self._process.wait(timeout=10)
        shutil.rmtree(self._home, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url):
                return True
        except psycopg.OperationalError:
            return False
