"""Reports to Sentry and to an OpenTelemetry collector, received by an HTTP server."""

from __future__ import annotations

import gzip
import http.server
import importlib.util
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from amani_app.adapters.fincra.settings import FincraSettings
from amani_app.settings import Settings, SettingsError
from amani_app.telemetry.observability import require_extras
from amani_app.telemetry.scrubbing import REMOVED, Scrubber
from tests.support.service_fixtures import Shell, free_port
from tests.support.waiting import eventually

PASSWORD = "correct horse battery"
SECRET_KEY = "5ecre7" * 8
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"
BUILD = {"BUILD_VERSION": "1.2.3", "BUILD_SHA": "c0ffee" * 6 + "c0ff", "BUILD_NUMBER": "7"}


class Sink:
    """An HTTP server that keeps the requests posted to it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Mapping[str, str], bytes]] = []
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.got.append((self.path, dict(self.headers), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def errors(self) -> list[dict[str, Any]]:
        """The events in the envelopes for Sentry project 7."""
        found = []
        for path, _, body in list(self.got):
            if path == "/api/7/envelope/":
                lines = body.splitlines()
                heads = zip(lines[1::2], lines[2::2], strict=False)
                found += [json.loads(e) for h, e in heads if json.loads(h)["type"] == "event"]
        return found

    def traces(self) -> list[ExportTraceServiceRequest]:
        """The traces received by the collector."""
        bodies = [body for path, _, body in list(self.got) if path == "/v1/traces"]
        return [ExportTraceServiceRequest.FromString(body) for body in bodies]


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def reporting(sqlite_url: str, migrated_sqlite: Path, sink: Sink, tmp_path: Path) -> Shell:
    """A shell with a migrated database whose settings send every report to the sink."""
    shutil.copy(migrated_sqlite, sqlite_url.removeprefix("sqlite:///"))
    return Shell(
        DATABASE_URL=sqlite_url,
        SECRET_KEY=SECRET_KEY,
        ENVIRONMENT="staging",
        TMPDIR=str(tmp_path),
        **BUILD,
        SENTRY_DSN=f"http://0123456789abcdef@127.0.0.1:{sink.port}/7",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{sink.port}",
        OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=open%20sesame",
        OTEL_TRACES_SAMPLER_ARG="1",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )


def break_database(shell: Shell, statement: str) -> None:
    path = shell.environ["DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)
    connection.close()


def test_error_and_trace_of_a_request_contain_no_secrets(
    reporting: Shell, sink: Sink, tmp_path: Path
) -> None:
    reporting.environ["AMANI_PASSWORD"] = PASSWORD
    reporting.ok("flask", "amani", "user-create", "ada@example.org", "--name=Ada")
    # The error message contains a secret, a token and an email address.
    words = f"{SECRET_KEY} {TOKEN} ada@example.org"
    break_database(reporting, f"UPDATE users SET role = '{words}'")
    port = free_port()
    reporting.environ.update(
        PORT=str(port), WEB_CONCURRENCY="1", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "metrics")
    )
    log = tmp_path / "server.log"
    process = reporting.start("gunicorn", "wsgi:app", log=log)
    url = f"http://127.0.0.1:{port}/api/v1"
    try:
        eventually(lambda: answers(f"{url}/ping"))
        failed = requests.post(
            f"{url}/auth/login?token=in-the-query",
            json={"email": "ada@example.org", "password": PASSWORD},
            headers={"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "request-of-the-test"},
            timeout=20,
        )
        assert failed.status_code == 500, failed.text
        (error,) = eventually(sink.errors)
        traces = eventually(sink.traces)
    finally:
        process.terminate()
        process.wait(20)

    assert (error["release"], error["environment"]) == ("amani@1.2.3", "staging")
    assert error["tags"] == {"commit": BUILD["BUILD_SHA"], "request_id": "request-of-the-test"}
    raised = error["exception"]["values"][-1]
    assert raised["type"] == "ValueError"
    assert f"{REMOVED} {REMOVED} {REMOVED}" in raised["value"]
    assert error["request"]["url"].endswith("/auth/login")
    assert "Authorization" not in error["request"]["headers"]

    ((resource, span),) = [
        (each.resource, span)
        for trace in traces
        for each in trace.resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]
    told = {a.key: a.value.string_value for a in resource.attributes}
    assert told["service.version"] == "1.2.3"
    assert told["deployment.environment.name"] == "staging"
    assert told["vcs.ref.head.revision"] == BUILD["BUILD_SHA"]
    assert span.name == "POST /api/v1/auth/login"
    assert {a.key: a.value.int_value for a in span.attributes}["http.status_code"] == 500
    (collected,) = {headers.get("x-collector-key") for path, headers, _ in sink.got if "v1" in path}
    assert collected == "open sesame"

    everything = b"".join(body for _, _, body in sink.got)
    for secret in (SECRET_KEY, TOKEN, PASSWORD, "in-the-query", "ada@example.org", "127.0.0.1:6"):
        assert secret.encode() not in everything, secret


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_worker_reports_a_failed_job(reporting: Shell, sink: Sink, tmp_path: Path) -> None:
    break_database(
        reporting,
        "INSERT INTO outbox (id, topic, subject, payload, created_at, attempts)"
        " VALUES ('o', 'nobody-listens', 's', '{}', '2026-11-24 00:00:00', 0)",
    )
    break_database(
        reporting,
        "CREATE TRIGGER sealed BEFORE UPDATE ON outbox"
        " BEGIN SELECT RAISE(ABORT, 'the outbox is sealed'); END",
    )
    process = reporting.start("flask", "amani", "worker", log=tmp_path / "worker.log")
    try:
        error = eventually(sink.errors)[0]
    finally:
        process.terminate()
        process.wait(20)
    assert (error["release"], error["environment"]) == ("amani@1.2.3", "staging")
    words = error["exception"]["values"][-1]["value"]
    assert "the outbox is sealed" in words
    assert "[SQL parameters hidden" in words, "nobody quotes values to begin with"


def test_missing_extras_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_extras(Settings())
    settings = Settings(sentry_dsn="https://key@sentry.test/1")
    with pytest.raises(SettingsError, match="SENTRY_DSN: .*EXTRAS=observability"):
        require_extras(settings)
    with pytest.raises(SettingsError, match="^OTEL_EXPORTER_OTLP_ENDPOINT: opentelemetry is not"):
        require_extras(Settings(otel_exporter_otlp_endpoint="https://collector.test"))


@pytest.mark.parametrize("dsn", ["sentry.test/1", "https://sentry.test/1", "https://k@s.test/x"])
def test_wrong_dsn_is_rejected_without_quoting_it(dsn: str) -> None:
    with pytest.raises(ValueError, match="SENTRY_DSN: must be like") as refused:
        Settings(sentry_dsn=dsn)
    assert dsn not in str(refused.value)


def test_disabled_telemetry_imports_no_library() -> None:
    shell = Shell(PYTHONPATH=".")
    code = "import sys, wsgi; print([m for m in sys.modules if m[:6] in ('sentry', 'opente')])"
    assert shell.ok("python", "-c", code) == "[]"


SCRUB = Scrubber(
    Settings(
        database_url="postgresql://amani:pass-word@db/amani",
        previous_secret_keys=f"{'a' * 32},{'b' * 32}",
    ),
    FincraSettings(fincra_webhook_secret="short"),
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("could not connect with pass-word", f"could not connect with {REMOVED}"),
        (f"signed by {'b' * 32}.", f"signed by {REMOVED}."),
        ("postgresql://other:hidden@db/x", f"postgresql://{REMOVED}@db/x"),
        ("Authorization: Bearer abcdefgh12", f"Authorization: Bearer {REMOVED}"),
        (f"token {TOKEN} is old", f"token {REMOVED} is old"),
        ("nobody is ada.l@mail.example.org", f"nobody is {REMOVED}"),
        (
            "[SQL: SELECT ?]\n[parameters: ('Ada [A]',\n 7)]\n(see)",
            f"[SQL: SELECT ?]\n[parameters: {REMOVED}]\n(see)",
        ),
        ("in short: nothing", "in short: nothing"),
        ("12 of 40 rows", "12 of 40 rows"),
    ],
)
def test_only_secrets_are_removed_from_texts(said: str, told: str) -> None:
    assert SCRUB(said) == told


def test_values_of_sensitive_keys_are_removed_at_any_depth() -> None:
    given = {
        "headers": [{"X-Api-Key": "k", "Cookie": "c", "Host": "h"}],
        "account_number": "0690000031",
        "token": "",
        "count": 3,
        "at": ("pass-word", None),
    }
    assert SCRUB(given) == {
        "headers": [{"X-Api-Key": REMOVED, "Cookie": REMOVED, "Host": "h"}],
        "account_number": REMOVED,
        "token": "",
        "count": 3,
        "at": [REMOVED, None],
    }
    assert given["count"] == 3 and given["token"] == ""
