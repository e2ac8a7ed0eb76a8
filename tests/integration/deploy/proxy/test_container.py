"""The proxy's container: its changes, reverts and restarts, and the requests that it serves."""

from __future__ import annotations

import datetime
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import proxy
from deploy.environment.model import Environment
from deploy.errors import DeployError, EngineError, UsageError
from tests.support.proxy_stand import Stand, eventually, free_port
from workshop.bench.load_run import load

pytestmark = pytest.mark.engine


def changed(stand: Stand, section: str, **values: Any) -> Environment:
    """The stand's environment with other values in one section."""
    part = getattr(stand.environment, section)
    return stand.environment.model_copy(update={section: part.model_copy(update=values)})


def with_timeout(stand: Stand, seconds: float) -> Environment:
    timeouts = stand.environment.proxy.timeouts.model_copy(update={"server": seconds})
    return changed(stand, "proxy", timeouts=timeouts)


def test_a_settled_proxy_is_not_changed(stand: Stand) -> None:
    assert proxy.ensure(stand.host, stand.environment, None) == proxy.ProxyChange("none")

    facts, settled = proxy.read_facts(stand.host, stand.environment)
    assert settled and facts.running and facts.present
    assert facts.recorded is None and not facts.maintenance


def test_a_reload_under_load_loses_no_request(stand: Stand) -> None:
    stand.serve_from("blue")

    with load(stand.profile) as running:
        for seconds in (31, 32, 33):
            wanted = with_timeout(stand, seconds)
            assert not proxy.read_facts(stand.host, wanted)[1]
            assert proxy.ensure(stand.host, wanted, "blue").kind == "reloaded"
            facts, settled = proxy.read_facts(stand.host, wanted)
            assert settled and facts.recorded == "blue"

    assert running.records.failures == {}
    assert len(running.records.starts) > 100


def test_a_reload_is_reverted(stand: Stand) -> None:
    stand.serve_from("blue")
    change = proxy.ensure(stand.host, with_timeout(stand, 31), "blue")

    proxy.revert(stand.host, with_timeout(stand, 31), change)

    assert proxy.read_facts(stand.host, stand.environment)[1]
    assert stand.ask().slot == "blue"


def test_a_changed_port_recreates_the_container_and_is_reverted(stand: Stand) -> None:
    stand.serve_from("blue")
    elsewhere = changed(stand, "proxy", http_port=free_port())

    change = proxy.ensure(stand.host, elsewhere, "blue")

    assert change.kind == "recreated"
    moved = Stand(stand.host, elsewhere)
    eventually(lambda: moved.ask().status == 200)
    proxy.revert(stand.host, elsewhere, change)
    assert proxy.read_facts(stand.host, stand.environment)[1]
    eventually(lambda: stand.ask().status == 200)


def test_reverting_a_created_proxy_removes_it_and_its_configuration(bare_stand: Stand) -> None:
    change = proxy.ensure(bare_stand.host, bare_stand.environment, None)
    assert change.kind == "created"

    proxy.revert(bare_stand.host, bare_stand.environment, change)

    facts, _ = proxy.read_facts(bare_stand.host, bare_stand.environment)
    assert not facts.present
    left = [path.name for path in Path(bare_stand.environment.folder, "proxy").iterdir()]
    assert left == ["maintenance.acl"]


def test_a_change_is_recorded_before_it_starts_and_cleared_once_reverted(
    bare_stand: Stand,
) -> None:
    noted: list[str] = []
    with socket.create_server(("127.0.0.1", bare_stand.port)):
        with pytest.raises(EngineError):
            proxy.ensure(
                bare_stand.host,
                bare_stand.environment,
                None,
                note=lambda change: noted.append(change.kind),
            )
    assert noted == ["created", "none"]
    assert not proxy.read_facts(bare_stand.host, bare_stand.environment)[0].present


def test_a_port_in_use_is_reported_and_the_change_is_reverted(stand: Stand) -> None:
    stand.serve_from("blue")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        elsewhere = changed(stand, "proxy", http_port=taken.getsockname()[1])
        with pytest.raises(EngineError, match="address already in use|port is already allocated"):
            proxy.ensure(stand.host, elsewhere, "blue")

    eventually(lambda: stand.ask().status == 200)
    assert proxy.read_facts(stand.host, stand.environment)[1]


def test_a_configuration_that_haproxy_refuses_changes_nothing(stand: Stand) -> None:
    stand.serve_from("blue")
    bad = changed(stand, "health", path="/ready 'unclosed")

    with pytest.raises(UsageError, match="does not accept") as caught:
        proxy.ensure(stand.host, bad, "blue")

    assert "unclosed" in caught.value.message
    assert proxy.read_facts(stand.host, stand.environment)[1]
    assert stand.ask().slot == "blue"
    assert sorted(path.name for path in Path(stand.environment.folder, "proxy").iterdir()) == [
        "haproxy.cfg",
        "maintenance.acl",
    ]


def test_a_restarted_proxy_serves_the_recorded_slot(stand: Stand) -> None:
    stand.serve_from("blue")
    stand.serve_from("green")

    stand.engine.stop(stand.proxy, 1)
    stopped, _ = proxy.read_facts(stand.host, stand.environment)
    assert (stopped.running, stopped.present, stopped.recorded) == (False, True, "green")
    assert proxy.ensure(stand.host, stand.environment, "green").kind == "started"

    eventually(lambda: stand.ask().status == 200)
    assert {stand.ask().slot for _ in range(8)} == {"green"}


def test_maintenance_answers_503_at_once_and_after_a_restart(stand: Stand) -> None:
    stand.serve_from("blue")

    proxy.set_maintenance(stand.host, stand.environment, True)

    answer = stand.ask()
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "60"
    facts, settled = proxy.read_facts(stand.host, stand.environment)
    assert facts.maintenance and settled
    assert facts.servers["blue"].up and facts.servers["blue"].state == "ready"

    stand.engine.stop(stand.proxy, 1)
    stand.engine.start(stand.proxy)
    eventually(lambda: _status(stand) == 503)
    eventually(lambda: _maintenance(stand))

    proxy.set_maintenance(stand.host, stand.environment, False)
    assert stand.ask().status == 200
    assert not proxy.read_facts(stand.host, stand.environment)[0].maintenance


def _status(stand: Stand) -> int:
    try:
        return stand.ask().status
    except OSError:
        return 0


def _maintenance(stand: Stand) -> bool:
    try:
        return proxy.read_facts(stand.host, stand.environment)[0].maintenance
    except DeployError:
        return False


@pytest.mark.parametrize(
    "path",
    ["/metrics", "//metrics", "/%6detrics", "/%2fmetrics", "/api", "/", "/apix/", "/.env"],
)
def test_a_path_that_is_not_public_answers_404(stand: Stand, path: str) -> None:
    stand.serve_from("blue")

    answer = stand.ask(path)

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["status"] == 404
    assert answer.headers["x-request-id"]


def test_forwarding_headers_of_a_client_are_replaced(stand: Stand) -> None:
    stand.serve_from("blue")
    lies = {
        name: "lie"
        for name in (
            "X-Forwarded-For",
            "x-forwarded-host",
            "X_Forwarded_For",
            "X-Real-IP",
            "Forwarded",
            "X-Forwarded-Proto",
        )
    }

    seen = stand.ask(headers=lies).body.decode()

    assert "lie" not in seen
    assert "x-forwarded-proto: http\n" in seen
    assert "x-forwarded-for: " in seen


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("0123-abcd", True), ("", False), ("short", False), ("a" * 65, False), ('x"\\; drop', False)],
)
def test_only_a_well_formed_request_id_is_kept(stand: Stand, sent: str, kept: bool) -> None:
    stand.serve_from("blue")

    answer = stand.ask(headers={"X-Request-ID": sent})

    told = answer.headers["x-request-id"]
    assert (told == sent) is kept
    assert len(told) >= 8
    assert f"x-request-id: {told}\n" in answer.body.decode()


def test_the_access_log_is_json(stand: Stand) -> None:
    stand.serve_from("blue")
    told = stand.ask('/api/v1/ping?quote="').headers["x-request-id"]

    def logged() -> list[dict[str, Any]]:
        lines = stand.engine.logs(stand.proxy, tail=20).splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["request_id"] == told]

    eventually(lambda: bool(logged()))
    (entry,) = logged()
    assert (entry["method"], entry["status"], entry["slot"]) == ("GET", 200, "blue")


def test_workers_do_not_run_as_root_and_sockets_belong_to_root(stand: Stand) -> None:
    script = "for pid in /proc/[0-9]*; do grep -H -E '^(Uid|CapEff):' $pid/status; done"
    told = stand.engine.run_in(stand.proxy, ["sh", "-c", script]).output
    listed = stand.engine.run_in(stand.proxy, ["sh", "-c", "stat -c '%U %a' /run/*.sock"]).output

    workers = [line for line in told.splitlines() if "Uid:\t99" in line]
    assert len(workers) == 1
    assert f"{workers[0].split('status')[0]}status:CapEff:\t0000000000000000" in told
    assert set(listed.split()) <= {"root", "600", "700", "755"}


def test_tls_is_served_and_plain_http_redirected(stand: Stand, tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "api.pem").write_bytes(_certificate())
    (folder / "api.pem").chmod(0o600)
    secure = changed(stand, "proxy", https_port=free_port(), certificate=str(folder / "api.pem"))

    assert proxy.ensure(stand.host, secure, None).kind == "recreated"
    stand.serve_from("blue")

    moved = stand.ask("/api/v1/ping?a=b", {"Host": f"localhost:{stand.port}"})
    assert moved.status == 308
    assert moved.headers["location"] == (
        f"https://localhost:{secure.proxy.https_port}/api/v1/ping?a=b"
    )
    answer = Stand(stand.host, secure).ask_securely(folder / "api.pem")
    assert answer.slot == "blue"
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert "x-forwarded-proto: https\n" in answer.body.decode()


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_a_killed_slot_is_marked_down_and_its_clients_get_problem_json(stand: Stand) -> None:
    stand.serve_from("blue")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(stand.ask, "/api/v1/ping?delay_ms=5000")
        eventually(lambda: proxy.read_servers(stand.engine, stand.proxy)["blue"].sessions == 1)
        stand.engine.kill(stand.boot_name("blue"), "KILL")

        cut = slow.result()

    assert cut.status == 502
    assert cut.headers["content-type"] == "application/problem+json"
    eventually(lambda: not proxy.read_servers(stand.engine, stand.proxy)["blue"].up)
    assert stand.ask().status == 503
