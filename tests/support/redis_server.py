"""A temporary Redis server."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.support.waiting import eventually


class RedisServer:
    """A server on a Unix socket that writes nothing to disk."""

    def __init__(self) -> None:
        if not shutil.which("redis-server"):
            raise RuntimeError("no Redis server here; try: apt-get install redis-server")
        self._home = Path(tempfile.mkdtemp(prefix="amani-redis-"))
        self.url = f"unix://{self._home}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = {
            "unixsocket": f"{self._home}/socket",
            "port": "0",
            "save": "",
            "daemonize": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(["redis-server", *words], cwd=self._home, **quiet)
        with redis.Redis.from_url(self.url) as client:
            eventually(lambda: _answers(client))

    def stop(self) -> None:
        """Kill the server. Its data is lost."""
        if self._process:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
