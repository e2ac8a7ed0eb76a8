"""The real server and the real worker, as processes."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.support.service_fixtures import (  # noqa: F401
    Shell,
    database_url,
    free_port,
)
from tests.support.waiting import eventually


class Server:
    """A running gunicorn."""

    def __init__(self, shell: Shell, home: Path) -> None:
        self.port = free_port()
        self.log = home / "server.log"
        shell.environ.update(
            PORT=str(self.port),
            WEB_CONCURRENCY="2",
            PROMETHEUS_MULTIPROC_DIR=str(home / "metrics"),
            READINESS_CACHE="0",
            PRACTICE="true",
        )
        self.process = shell.start("gunicorn", "wsgi:app", log=self.log)

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def server(shell: Shell, tmp_path: Path) -> Iterator[Server]:
    server = Server(shell, tmp_path)
    try:
        eventually(lambda: server.get("/api/v1/ping")[0] == 200)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_readiness_succeeds_once_the_schema_is_migrated(server: Server, shell: Shell) -> None:
    status, body = server.get("/api/v1/readiness")
    assert status == 503
    assert "behind" in json.loads(body)["detail"]
    shell.ok("flask", "db", "upgrade")
    assert server.get("/api/v1/readiness")[0] == 200
    assert server.get("/api/v1/health")[0] == 200


def test_on_sigterm_running_requests_finish_and_readiness_fails(
    server: Server, shell: Shell
) -> None:
    shell.ok("flask", "db", "upgrade")
    # Open connections to every worker, as a proxy keeps them.
    kept = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(8)]
    for connection in kept:
        connection.request("GET", "/api/v1/readiness")
        assert connection.getresponse().read()
    slow: list[int] = []
    client = threading.Thread(
        target=lambda: slow.append(server.get("/api/v1/ping?delay_ms=1500")[0])
    )
    client.start()
    # The slow request and the one for the metrics.
    eventually(lambda: "\namani_http_running 2.0" in server.get("/metrics")[1])
    server.process.send_signal(signal.SIGTERM)

    def last_word(connection: http.client.HTTPConnection) -> str:
        """The status and detail that a stopping worker answers, `gone`, or empty if it serves."""
        try:
            connection.request("GET", "/api/v1/readiness")
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            return "gone"
        return f"{answer.status} {body['detail']}" if answer.status != 200 else ""

    heard = {eventually(lambda c=connection: last_word(c)) for connection in kept}  # type: ignore
    assert "503 stopping" in heard
    assert heard <= {"503 stopping", "gone"}
    for connection in kept:
        connection.close()
    client.join()
    assert slow == [200]
    assert server.process.wait(20) == 0


def test_metrics_add_up_over_all_workers(server: Server) -> None:
    def counted() -> float:
        wanted = 'amani_http_requests_total{method="GET",route="/api/v1/version",status="200"} '
        lines = server.get("/metrics")[1].splitlines()
        return next((float(x.split()[-1]) for x in lines if x.startswith(wanted)), 0.0)

    for _ in range(30):
        assert server.get("/api/v1/version")[0] == 200
    assert counted() == 30


def test_every_line_of_the_log_is_json(server: Server) -> None:
    server.get("/api/v1/version")
    server.get("/nothing")
    paths = [e["path"] for e in server.events() if e["event"] == "request"]
    assert paths == ["/api/v1/version", "/nothing"]


def test_the_exit_fault_ends_the_server_but_not_a_command(shell: Shell) -> None:
    shell.environ.update(PRACTICE="true", PRACTICE_FAULT="exit", PORT=str(free_port()))
    done = shell.run("gunicorn", "wsgi:app")
    assert done.returncode == 1
    assert "practice fault: exit" in done.stderr
    shell.ok("flask", "db", "upgrade")


def test_the_health_check_fails_after_the_server_has_ended(server: Server, shell: Shell) -> None:
    alive = ("python", "-m", "amani_app.healthcheck")
    shell.ok(*alive)
    server.process.kill()
    server.process.wait()
    eventually(lambda: server.get("/api/v1/ping")[0] == 0)
    done = shell.run(*alive)
    assert done.returncode == 1
    assert "no answer" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_registers_itself_and_stops_cleanly(
    shell: Shell, database_url: str, tmp_path: Path, number: signal.Signals  # noqa: F811
) -> None:
    shell.ok("flask", "db", "upgrade")
    engine = create_engine(database_url)

    def registered() -> int:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM worker_heartbeats")) or 0

    worker = shell.start("flask", "amani", "worker", log=tmp_path / "worker.log")
    try:
        eventually(lambda: registered() == 1)
        shell.ok("python", "-m", "amani_app.healthcheck")
        worker.send_signal(number)
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
    assert registered() == 0
    assert not (tmp_path / "amani-worker.heartbeat").exists()
    events = [json.loads(x)["event"] for x in (tmp_path / "worker.log").read_text().splitlines()]
    assert (events[0], events[-1]) == ("worker.started", "worker.stopped")
    engine.dispose()


def test_the_worker_waits_for_the_schema(shell: Shell, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    shell.environ["WORKER_INTERVAL"] = "0.1"
    worker = shell.start("flask", "amani", "worker", log=log)
    try:
        eventually(lambda: "worker.waiting" in log.read_text())
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
