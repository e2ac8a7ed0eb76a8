"""`invoke smoke` against a healthy service and against faulty ones."""

from __future__ import annotations

import datetime
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.environment.model import Environment, load_environment
from deploy.errors import UsageError
from deploy.events import Events
from deploy.machine.checkout import ROOT
from deploy.observe.probe import Route
from deploy.observe.smoke_checks import CheckResult, ExpectedRelease, Inspection
from deploy.operations.smoke import expect_live, run_smoke_checks
from deploy.secrets import Secret
from deploy.state.journal import Record

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Request-ID": "0123456789abcdef",
    "Strict-Transport-Security": "max-age=31536000",
}
GOOD: dict[str, Any] = {
    "/api/v1/ping": (200, {}),
    "/api/v1/readiness": (200, {"ready": True}),
    "/api/v1/health": (200, {"checks": {"schema:revision": [{"observedValue": "0003"}]}}),
    "/api/v1/version": (200, {"version": "1.4.0"}),
    "/api/v1/openapi.json": (200, {"openapi": "3.1.0", "paths": {"/ping": {}}}),
    "/api/v1/auth/login": (200, {"token": "a-token"}),
    "/api/v1/auth/me": (200, {"id": "1"}),
}


RELEASE = ExpectedRelease("1.4.0", "0003")


class Service:
    """A service with configurable answers, on a free port of this machine."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers, self.headers, self.asked = dict(GOOD), dict(HEADERS), []
        self.media = "application/problem+json"
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                sent = json.loads(self.rfile.read(length) or "null")
                service.asked.append((self.path, sent, self.headers.get("Authorization")))
                status, content = service.answers.get(self.path, (404, {"status": 404}))
                self.send_response(status)
                media = service.media if status == 404 else "application/json"
                for name, value in {**service.headers, "Content-Type": media}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def environment(folder: Path, **smoke: Any) -> Environment:
    content = yaml.safe_load((ROOT / "config" / "environments" / "local.yml").read_text())
    (folder / "here.yml").write_text(yaml.safe_dump(content | {"smoke": smoke}))
    return load_environment("here", folder=folder)


@pytest.fixture
def inspect(service: Service, tmp_path: Path) -> Callable[..., dict[str, CheckResult]]:
    def make(
        expected: ExpectedRelease = RELEASE,
        who: tuple[Secret, Secret] | None = None,
        **smoke: Any,
    ) -> dict[str, CheckResult]:
        route = Route("127.0.0.1", service.port, "localhost")
        made = Inspection("web-1", environment(tmp_path, **smoke), route, expected, who)
        return {finding.check: finding for finding in made.run()}

    return make


def failed(found: dict[str, CheckResult]) -> dict[str, str]:
    return {name: finding.remark for name, finding in found.items() if not finding.passed}


def test_healthy_service_passes_every_check(inspect):
    found = inspect()
    assert failed(found) == {}
    assert list(found) == [
        "version",
        "/api/v1/ping",
        "/api/v1/health",
        "/api/v1/readiness",
        "migrations",
        "openapi",
        "unknown route",
        "security headers",
        "response time",
    ]
    assert found["migrations"].remark == "at 0003"


@pytest.mark.parametrize(
    ("path", "answer", "check", "remark"),
    [
        ("version", (200, {"version": "1.3.0"}), "version", "is '1.3.0', expected '1.4.0'"),
        ("version", (200, ["1.4.0"]), "version", "is None, expected '1.4.0'"),
        ("ping", (500, {"a": 1}), "/api/v1/ping", '/api/v1/ping answered 500: {"a": 1}'),
        ("readiness", (503, {}), "/api/v1/readiness", "/api/v1/readiness answered 503: {}"),
        (
            "health",
            (200, {"checks": {"schema:revision": [{"observedValue": "0002"}]}}),
            "migrations",
            "at 0002, expected 0003",
        ),
        (
            "health",
            (200, {}),
            "migrations",
            "/api/v1/health names no revision at /checks/schema:revision/0/observedValue",
        ),
        ("openapi.json", (200, {}), "openapi", "/api/v1/openapi.json is no OpenAPI 3 document"),
        (
            "openapi.json",
            (200, {"openapi": "3.1.0"}),
            "openapi",
            "/api/v1/openapi.json describes no path",
        ),
        (
            "no-such-route",
            (200, {}),
            "unknown route",
            "/api/v1/no-such-route answered 200 instead of 404",
        ),
    ],
)
def test_wrong_answer_fails_only_its_check(inspect, service, path, answer, check, remark):
    service.answers[f"/api/v1/{path}"] = answer
    assert failed(inspect()) == {check: remark}


def test_html_page_for_unknown_route_fails(inspect, service):
    service.media = "text/html; charset=utf-8"
    assert "answered text/html" in failed(inspect())["unknown route"]


def test_missing_and_changed_headers_are_named(inspect, service):
    service.headers |= {"X-Content-Type-Options": "sniff"}
    del service.headers["Referrer-Policy"]
    assert failed(inspect()) == {
        "security headers": "X-Content-Type-Options is 'sniff', expected 'nosniff'; "
        "no Referrer-Policy"
    }


def test_service_slower_than_limit_fails(inspect):
    assert "allowed are 0 ms" in failed(inspect(response_limit="0s"))["response time"]


def test_unreachable_service_fails_every_check(inspect, service):
    service.close()
    found = inspect()
    assert set(failed(found)) == set(found)
    assert "ConnectionRefusedError" in found["version"].remark


ACCOUNT = {"username": "SMOKE_EMAIL", "password": "SMOKE_PASSWORD"}


WHO = (Secret("ada@example.org"), Secret("correct horse"))


def test_smoke_account_signs_in_and_reads(inspect, service):
    found = inspect(who=WHO, account=ACCOUNT)
    assert found["authenticated read"].passed
    assert service.asked[-2:] == [
        ("/api/v1/auth/login", {"email": "ada@example.org", "password": "correct horse"}, None),
        ("/api/v1/auth/me", None, "Bearer a-token"),
    ]


@pytest.mark.parametrize(
    ("path", "answer", "remark"),
    [
        ("login", (401, {"detail": "correct horse"}), "login answered 401 and gave no token"),
        ("login", (200, {}), "login answered 200 and gave no token"),
        ("me", (401, {}), "me answered 401 with a valid token"),
    ],
)
def test_failed_sign_in_is_reported_without_credentials(inspect, service, path, answer, remark):
    service.answers[f"/api/v1/auth/{path}"] = answer
    found = inspect(who=WHO, account=ACCOUNT)
    assert failed(found) == {"authenticated read": f"/api/v1/auth/{remark}"}


def certificate(folder: Path, days: int) -> Path:
    """A self-signed certificate for localhost and its key, valid for `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{days}.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.mark.parametrize(
    ("days", "trusted", "remark"),
    [
        (90, True, "TLSv1.3, valid for 90 days"),
        (5, True, "the certificate expires in 5.0 days"),
        (90, False, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_certificate_must_be_trusted_and_not_expire_soon(
    tmp_path, monkeypatch, days, trusted, remark
):
    file = certificate(tmp_path, days)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    service = Service(context)
    try:
        route = Route("127.0.0.1", service.port, "localhost", tls=True)
        made = Inspection("web-1", environment(tmp_path), route, ExpectedRelease("1.4.0"))
        found = {finding.check: finding for finding in made.run()}
    finally:
        service.close()
    assert remark in found["tls"].remark
    assert found["tls"].passed is (trusted and days > 14)
    assert found["security headers"].passed is trusted


def test_http_without_redirect_to_https_fails(service, tmp_path):
    route = Route("127.0.0.1", service.port, "localhost", tls=False)
    made = Inspection(
        "web-1", environment(tmp_path), route, ExpectedRelease("1.4.0"), redirect=service.port
    )
    found = {finding.check: finding for finding in made.run()}
    assert failed(found) == {"redirect to https": "plain HTTP answered 404, not a redirect"}
    service.answers["/"] = (308, {})
    service.headers["Location"] = "https://localhost/"
    assert failed({finding.check: finding for finding in made.run()}) == {}


def record(version: str, schema: str, started: float, outcome: str = "succeeded") -> Record:
    return Record(
        id=str(started),
        kind="deploy",
        environment="here",
        hosts=("web-1",),
        version=version,
        digest=f"sha256:{version}",
        revision="",
        outcome=outcome,
        requested_by="ada",
        started=started,
        finished=started + 1,
        schema=schema,
    )


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([("1.0.0", "0001")], ExpectedRelease("1.0.0", "0001")),
        ([("1.0.0", "0001"), ("1.1.0", "0002")], ExpectedRelease("1.1.0", "0002")),
        (
            [("1.0.0", "0001"), ("1.1.0", "0002"), ("1.0.0", "0001")],
            ExpectedRelease("1.0.0", "0001", frozenset({"0002"})),
        ),
    ],
)
def test_expected_release_comes_from_the_journal(history, expected):
    oldest_first = [record(*each, started=n) for n, each in enumerate(history)]
    reverted = record("9.9.9", "0009", started=99, outcome="reverted")
    assert expect_live("here", [reverted, *reversed(oldest_first)]) == expected


def test_rolled_back_release_expects_the_later_schema(inspect):
    found = inspect(ExpectedRelease("1.4.0", "0002", frozenset({"0003"})))
    assert found["migrations"].passed
    assert found["migrations"].remark == "at 0003, later than the 0002 that this release needs"


def run(*arguments: str, program: str = "inv") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ROOT / program), *arguments], capture_output=True, text=True)


def test_task_prints_table_writes_report_and_returns_exit_code(service, tmp_path):
    url = f"http://127.0.0.1:{service.port}"
    report = tmp_path / "reports" / "smoke.xml"
    options = ("local", f"--url={url}", f"--junit={report}")
    good = run(*options, "--version=v1.4.0", program="scripts/verify_deployment.sh")
    assert good.returncode == 0, good.stderr
    assert "migrations" in good.stdout and "FAIL" not in good.stdout
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("9", "0")

    bad = run("smoke", "--env=local", f"--url={url}", "--version=1.5.0", f"--junit={report}")
    assert bad.returncode == 3
    assert "version: is '1.4.0', expected '1.5.0'" in bad.stderr
    suite = ElementTree.parse(report).getroot()
    failures = {case.get("name"): case[0].get("message") for case in suite if len(case)}
    assert failures == {"version": "is '1.4.0', expected '1.5.0'"}


@pytest.mark.parametrize("url", ["staging-api.amani.com", "ftp://a", "http://a:b", "https://a/v1"])
def test_invalid_url_is_a_usage_error(url):
    with pytest.raises(UsageError, match="is not a base URL"):
        run_smoke_checks("production", Events(), url=url, version="1.0.0")
