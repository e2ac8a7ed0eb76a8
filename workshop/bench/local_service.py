"""The service under test as processes on this machine: gunicorn, commands and worker."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deploy.errors import DeployError
from deploy.execute import interrupts
from deploy.machine.checkout import ROOT, program
from workshop.bench import leftovers
from workshop.bench.postgres import PostgresServer

API = "/api/v1"
PASSWORD = "correct horse battery"  # nosec B105 - of users of a throw-away database
UNLIMITED = dict.fromkeys(("LIMIT_READ", "LIMIT_WRITE", "LIMIT_SIGN_IN", "LIMIT_PAY_OUT"), "0")
"""Benchmarks send more requests than the rate limits allow."""


def free_port() -> int:
    """A free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until `condition` holds. Raises `DeployError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DeployError(f"{what}: did not happen within {seconds:g} s")
        time.sleep(0.02)


class LocalService:
    """One installation on `server`; `end` stops all processes that it started.

    `settings` are environment variables. Of this process's environment only the variables that
    programs need are passed on.
    """

    def __init__(
        self, server: PostgresServer, home: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.home = home
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TZ")}
        self.environ = {
            **kept,
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": server.url(),
            "SECRET_KEY": secrets.token_hex(32),
            "PORT": str(self.port),
            "TMPDIR": str(home),
            leftovers.MARK: leftovers.owner(),
            **UNLIMITED,
            **(settings or {}),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, *words: str, log: str, cwd: Path = ROOT, **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a program of the locked requirements in a session of its own, output to `log`."""
        with (self.home / log).open("ab") as out:
            process = subprocess.Popen(
                [program(words[0]), *words[1:]],
                cwd=cwd,
                env={**self.environ, **more},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        """Start gunicorn as the image does, and wait until the service is ready."""
        metrics = str(self.home / "metrics")
        words = ("gunicorn", "wsgi:app")
        process = self.start(*words, log="server.log", PROMETHEUS_MULTIPROC_DIR=metrics)
        wait_for(lambda: answers(self.port, f"{API}/readiness"), "readiness of the service")
        return process

    def serve_provider(self) -> None:
        """Start the sandbox of the payment provider; it pays at once, for a fee."""
        port = free_port()
        self.environ |= {
            "FINCRA_URL": f"http://127.0.0.1:{port}",
            "FINCRA_SECRET_KEY": secrets.token_hex(16),
            "FINCRA_PUBLIC_KEY": secrets.token_hex(16),
            "FINCRA_BUSINESS_ID": "bench",
            "FINCRA_WEBHOOK_SECRET": secrets.token_hex(16),
        }
        notices = f"http://127.0.0.1:{self.port}{API}/webhooks/fincra"
        words = ("flask", "amani", "sandbox", f"--port={port}", f"--webhook-url={notices}")
        switches = ("--switch=payouts=successful", "--switch=payout_fee=53.75")
        self.start(*words, *switches, log="sandbox.log")
        wait_for(lambda: reachable(port), "first connection to the sandbox")

    def arrived(self, minor: int) -> None:
        """Fund the wallet at the provider by `minor` units, as a bank transfer does."""
        connection = http.client.HTTPConnection(self.environ["FINCRA_URL"][7:], timeout=20)
        try:
            body = json.dumps({"amount": minor / 100, "currency": "NGN"})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/sandbox/fund", body, headers)
            if (status := connection.getresponse().status) != 200:
                raise DeployError(f"the sandbox refused to fund the wallet: status {status}")
        finally:
            connection.close()

    def flask(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `flask ...` and wait for it; `more` are further environment variables."""
        return subprocess.run(
            [program("flask"), *words],
            cwd=ROOT,
            env={**self.environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def must(self, *words: str, **more: str) -> str:
        """Run `flask ...` and return its output. Raises `DeployError` if it fails."""
        done = self.flask(*words, **more)
        if done.returncode:
            raise DeployError(f"flask {' '.join(words)} failed: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def end(self) -> None:
        """Kill all processes that were started, and their children."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def reachable(port: int) -> bool:
    """Whether a TCP connection to the port of this machine succeeds."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def answers(port: int, path: str) -> bool:
    """Whether GET of the path on the port of this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def children(pid: int) -> list[int]:
    """The ids of the running children of the process `pid`."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


@contextlib.contextmanager
def installed(
    settings: Mapping[str, str] | None = None, server: Mapping[str, str] | None = None
) -> Iterator[tuple[PostgresServer, LocalService]]:
    """A PostgreSQL server with the settings `server`, and a service on a migrated database.

    Ctrl-C and SIGTERM stop both. Removes first the processes and folders of earlier runs that got
    SIGKILL.
    """
    leftovers.sweep()
    with interrupts.handle(interrupts.raise_interrupt):
        postgres = PostgresServer(server)
        service = LocalService(postgres, leftovers.folder("amani-bench-"), settings)
        try:
            postgres.start()
            service.must("db", "upgrade")
            yield postgres, service
        finally:
            with interrupts.handle(_finish_first):
                service.end()
                shutil.rmtree(service.home, ignore_errors=True)
                postgres.remove()


def _finish_first() -> None:
    """Ignore a second request to stop during the clean-up."""
