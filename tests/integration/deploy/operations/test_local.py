"""`invoke up` on this machine's engine, without a change to the environment `local`."""

from __future__ import annotations

import contextlib
import functools
import http.server
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from deploy.backups import catalogue as backups
from deploy.environment.model import Environment
from deploy.events import Event, Events
from deploy.hosts.local import LocalHost
from deploy.machine.checkout import ROOT
from deploy.observe.metrics import render
from deploy.observe.probe import Answer
from deploy.operations.local import start_local
from deploy.operations.metrics import collect_metrics
from deploy.operations.one_off import run_one_off
from deploy.operations.removal import remove_environment
from deploy.operations.smoke import run_smoke_checks
from tests.support import clusters
from tests.support.waiting import eventually
from tests.unit.project.test_monitoring import named_metrics

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an environment like `local`, with its own name, port, network and folder."""
    name = f"local-{secrets.token_hex(3)}"
    file = (ROOT / "config" / "environments" / "local.yml").read_text()
    for old, new in (
        ("http_port: 8080", f"http_port: {free_port()}"),
        ("172.29.10.0/24", f"172.30.{secrets.randbelow(250)}.0/24"),
        ("~/.local/share/amani/local", str(tmp_path / "state")),
    ):
        assert old in file
        file = file.replace(old, new)
    (tmp_path / f"{name}.yml").write_text(file)
    monkeypatch.setenv("AMANI_ENVIRONMENTS", str(tmp_path))
    yield name
    remove_environment(name, Events(), volumes=True)


def missing_metrics(environment: Environment, folder: Path) -> set[str]:
    """Return the metrics of the rules and dashboards that a Prometheus server does not find.

    It scrapes the live slot, its proxy, and the metrics of deploys and backups.
    """
    exported = folder / "exported"
    exported.mkdir()
    with contextlib.closing(LocalHost("this-machine")) as host:
        backups.publish(host, environment)
        backed_up = Path(backups.folder(environment), "metrics.prom").read_text()
    # This environment has no TLS, so the metric of the certificate comes from a made-up answer.
    certificate = Answer(200, expires=1e9)
    routes = collect_metrics(environment.name, Events()) + render("tls", [], {"web-1": certificate})
    # It has no archived PostgreSQL, either; tests/e2e covers the metrics of a real archive.
    archive = render("archived", [], {}, archived=True, archive=clusters.facts())
    lines = dict.fromkeys((routes + backed_up + archive).splitlines())
    samples = [line for line in lines if not line.startswith("#")]
    (exported / "metrics").write_text("\n".join(samples) + "\n")
    slot, port = environment.address_of("blue"), environment.health.port
    with (
        serve_files(exported) as files,
        serve_prometheus(
            folder, [f"{slot}:{port}", f"{environment.address_of('proxy')}:8404", files]
        ) as prometheus,
    ):

        def missing() -> set[str]:
            answer = requests.get(f"{prometheus}/api/v1/label/__name__/values", timeout=10)
            return named_metrics() - set(answer.json()["data"])

        with contextlib.suppress(AssertionError):
            eventually(lambda: not missing())
        return missing()


@contextlib.contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP; yield host and port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def serve_prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """Run a Prometheus server that scrapes the targets every second; yield its URL."""
    config = folder / "prometheus.yml"
    jobs = [{"job_name": "all", "static_configs": [{"targets": targets}]}]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    port = free_port()
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/series",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log)
        try:
            eventually(lambda: ready(f"http://127.0.0.1:{port}/-/ready"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_up_starts_the_service_behind_the_proxy_and_is_idempotent(environment: str, tmp_path: Path):
    heard: list[Event] = []
    first = start_local(Events(heard.append), environment)

    url = first.environment.url
    health = requests.get(f"{url}/api/v1/health", timeout=10)
    assert (health.status_code, health.json()["status"]) == (200, "pass")
    version = requests.get(f"{url}/api/v1/version", timeout=10).json()
    assert version["version"] == first.plan.version
    assert requests.get(f"{url}/metrics", timeout=10).status_code in (403, 404)

    findings = run_smoke_checks(environment, Events())
    assert [found for found in findings if not found.passed] == []
    assert {"version", "migrations", "openapi", "security headers"} <= {f.check for f in findings}

    seed = ("flask", "amani", "seed", "--users=3", "--escrows=4", "--password=correct horse")
    assert run_one_off(environment, seed, Events())[0] == 0
    assert missing_metrics(first.environment, tmp_path) == set()

    second = start_local(Events(), environment)
    assert first.applied
    assert second.plan.empty
