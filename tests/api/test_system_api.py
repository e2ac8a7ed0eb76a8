from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from amani_app import create_app
from amani_app.settings import Settings


@pytest.fixture
def migrated(app: Flask) -> Flask:
    set_revision(app, app.extensions["amani"].schema.expected)
    return app


def set_revision(app: Flask, revision: str) -> None:
    with app.extensions["amani"].engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)"))
        connection.execute(text("DELETE FROM alembic_version"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


def test_ping_answers_without_a_database(tmp_path: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/no/such/folder/x.sqlite3"))
    answer = app.test_client().get("/api/v1/ping")
    assert (answer.status_code, answer.json) == (200, {"ping": "pong"})


def test_root_links_resolve(client: FlaskClient, migrated: Flask) -> None:
    answer = client.get("/api/v1/")
    assert answer.status_code == 200
    for link in answer.json["links"].values():
        assert client.get(link).status_code == 200


def test_version_reports_the_build(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("BUILD_VERSION", "1.2.3")
    monkeypatch.setenv("BUILD_SHA", "c0ffee")
    answer = create_app(settings).test_client().get("/api/v1/version")
    assert answer.status_code == 200
    assert answer.json["version"] == "1.2.3"
    assert answer.json["commit"] == "c0ffee"
    assert set(answer.json) == {
        "version",
        "commit",
        "build_time",
        "build_number",
        "branch",
        "schema_head",
    }


def test_readiness_follows_the_schema(app: Flask, client: FlaskClient) -> None:
    answer = client.get("/api/v1/readiness")
    assert answer.status_code == 503
    assert answer.json["code"] == "not-ready"
    assert "behind" in answer.json["detail"]
    set_revision(app, app.extensions["amani"].schema.expected)
    assert client.get("/api/v1/readiness").status_code == 200
    set_revision(app, "a-revision-of-the-next-release")
    assert client.get("/api/v1/readiness").status_code == 200


def test_readiness_leaves_no_connection_checked_out(client: FlaskClient, migrated: Flask) -> None:
    for _ in range(20):
        assert client.get("/api/v1/readiness").status_code == 200
    assert migrated.extensions["amani"].engine.pool.checkedout() == 0


def test_health_passes_with_the_live_and_the_expected_revision(
    client: FlaskClient, migrated: Flask
) -> None:
    answer = client.get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.content_type == "application/health+json"
    assert answer.json["status"] == "pass"
    (schema,) = answer.json["checks"]["schema:revision"]
    assert schema["observedValue"] == schema["expectedValue"]
    (database,) = answer.json["checks"]["database:responseTime"]
    assert database["status"] == "pass"


def test_health_fails_while_the_schema_is_behind(client: FlaskClient) -> None:
    answer = client.get("/api/v1/health")
    assert answer.status_code == 503
    assert answer.json["status"] == "fail"
    assert answer.json["checks"]["schema:revision"][0]["observedValue"] is None
    assert answer.json["checks"]["database:responseTime"][0]["status"] == "pass"


def test_health_and_readiness_fail_without_a_database(tmp_path: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/no/such/folder/x.sqlite3"))
    client = app.test_client()
    health = client.get("/api/v1/health")
    assert health.status_code == 503
    assert health.json["checks"]["database:responseTime"][0]["status"] == "fail"
    readiness = client.get("/api/v1/readiness")
    assert readiness.status_code == 503
    assert readiness.json["detail"] == "the database is unreachable"
    assert readiness.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["/", "/api/v1/nothing", "/metrics/deeper"])
def test_unknown_path_returns_problem(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
    assert answer.json["type"] == "urn:amani:problem:not-found"
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]


def test_wrong_method_returns_problem_with_allowed_methods(client: FlaskClient) -> None:
    answer = client.post("/api/v1/ping")
    assert answer.status_code == 405
    assert answer.content_type == "application/problem+json"
    assert "GET" in answer.headers["Allow"]


def test_unexpected_exception_returns_problem_without_details(
    capfd: pytest.CaptureFixture[str], app: Flask
) -> None:
    @app.get("/api/v1/bug")
    def bug() -> None:
        raise RuntimeError("the inside")

    answer = app.test_client().get("/api/v1/bug")
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert "inside" not in answer.text
    traced = [line for line in capfd.readouterr().err.splitlines() if "the inside" in line]
    assert json.loads(traced[0])["request_id"] == answer.json["request_id"]


def test_unavailable_database_returns_503_with_retry_after(app: Flask) -> None:
    @app.get("/api/v1/away")
    def away() -> None:
        raise OperationalError("SELECT secret", {}, Exception("host db.internal"))

    answer = app.test_client().get("/api/v1/away")
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"] == "2"
    assert "internal" not in answer.text


def test_redirect_is_not_turned_into_problem(client: FlaskClient) -> None:
    assert client.get("/api/v1").status_code == 308


def test_oversized_body_is_rejected(app: Flask) -> None:
    @app.post("/api/v1/echo")
    def echo() -> str:
        from flask import request

        return request.get_data(as_text=True)

    answer = app.test_client().post("/api/v1/echo", data=b"x" * (64 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.content_type == "application/problem+json"


def test_valid_request_id_is_kept_and_invalid_one_replaced(client: FlaskClient) -> None:
    def ask(given: str) -> str:
        return client.get("/api/v1/ping", headers={"X-Request-ID": given}).headers["X-Request-ID"]

    assert ask("from-the-proxy-1") == "from-the-proxy-1"
    for bad in ("short", 'quote"inside', "x" * 200):
        assert re.fullmatch("[0-9a-f]{32}", ask(bad))


def test_each_request_is_one_json_line(
    capfd: pytest.CaptureFixture[str], client: FlaskClient
) -> None:
    client.get("/api/v1/version?token=hunter2", headers={"X-Request-ID": "abcdefgh"})
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["request_id"] == "abcdefgh"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/version", 200)
    assert line["duration_ms"] >= 0
    assert "hunter2" not in json.dumps(lines)


def test_successful_probes_are_not_logged(
    capfd: pytest.CaptureFixture[str], client: FlaskClient, migrated: Flask
) -> None:
    client.get("/api/v1/readiness")
    client.get("/api/v1/ping")
    assert '"request"' not in capfd.readouterr().err


def test_metrics_are_labelled_by_route_not_path(client: FlaskClient) -> None:
    client.get("/api/v1/secret-path-of-nobody")
    client.get("/api/v1/ping")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert 'route="/api/v1/ping",status="200"' in answer.text
    assert 'route="unmatched",status="404"' in answer.text
    assert "secret-path-of-nobody" not in answer.text


def test_every_response_has_security_headers(client: FlaskClient) -> None:
    for path in ("/api/v1/ping", "/nothing"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(("hops", "address"), [(0, "127.0.0.1"), (1, "203.0.113.9")])
def test_forwarded_addresses_are_trusted_only_from_known_proxies(
    capfd: pytest.CaptureFixture[str], hops: int, address: str, settings: Settings
) -> None:
    app = create_app(settings.model_copy(update={"proxy_hops": hops}))
    app.test_client().get("/api/v1/version", headers={"X-Forwarded-For": "203.0.113.9"})
    line = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert line["remote_addr"] == address
