"""The stack of docker-compose.yml, run by Compose v2, with the health of each service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import docker
import pytest
import requests

from deploy.events import Events
from deploy.images import build as images
from deploy.images.bases import Hub, ensure_bases, list_bases
from deploy.machine.checkout import ROOT
from deploy.state.release import BuildInfo
from tests.support.waiting import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
COMPOSE = "amani-compose:2-trixie"
GRAFANA = "grafana"
"""Debian packages no Grafana, so its image cannot be built: it runs only if it can be pulled."""
SERVING = {"app": 8000, "prometheus": 9090, "alertmanager": 9093}


class Stack:
    """One project of the compose file, under a name and on ports of its own."""

    def __init__(self) -> None:
        place = f"{ROOT} {os.environ.get('PYTEST_XDIST_WORKER', '')}"
        self.project = f"amani-test-{zlib.crc32(place.encode()):08x}"
        self.image = f"{self.project}:compose"
        self._environ = {
            "AMANI_IMAGE": self.image,
            **{f"{name}_PORT": "" for name in ("APP", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")},
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Compose with `words`."""
        argv = ["docker", "run", "--rm", "--network=none", f"--workdir={ROOT}"]
        argv += [f"--volume={ROOT}:{ROOT}:ro", "--volume=/var/run/docker.sock:/var/run/docker.sock"]
        argv += [f"--env={name}={value}" for name, value in self._environ.items()]
        # A developer's own .env does not affect this test.
        options = ["--project-name", self.project, "--env-file=/dev/null", "--profile=monitoring"]
        return subprocess.run(
            [*argv, COMPOSE, *options, *words],
            capture_output=True,
            text=True,
            timeout=240,
        )

    def ok(self, *words: str) -> str:
        """The output of Compose with `words`, which must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def url(self, service: str) -> str:
        """The URL of a service on this machine."""
        return f"http://{self.ok('port', service, str(SERVING[service])).strip()}"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The file as Compose resolves it, with all variables substituted."""
    ensure_bases([COMPOSE])
    found: dict[str, Any] = json.loads(Stack().ok("config", "--format=json"))
    return found


@pytest.fixture(scope="module")
def stack(config: dict[str, Any]) -> Iterator[Stack]:
    """All services, healthy; without Grafana if its image is not available."""
    made = Stack()
    services = set(config["services"])
    known = {base.name for base in list_bases()}
    ensure_bases({config["services"][name]["image"] for name in services} & known)
    if not can_be_had(config["services"][GRAFANA]["image"]):
        services.discard(GRAFANA)
    images.build(ROOT, BuildInfo.of(ROOT).arguments, [made.image], events=Events())
    try:
        made.ok("up", "--detach", "--wait", "--no-build", *sorted(services))
        yield made
    finally:
        made.run("down", "--volumes", "--timeout=1")
        with closing(docker.from_env()) as client:
            client.images.remove(made.image, force=True)


def can_be_had(image: str) -> bool:
    """Whether the engine has an image, or can pull it."""
    hub = Hub()
    with closing(hub.engine):
        return bool(hub.engine.images(image)) or hub.pull(image, print)


def test_every_service_has_a_health_check_and_a_pinned_image(config: dict[str, Any]):
    for name, service in config["services"].items():
        if service["image"] != Stack().image:  # which brings its own check
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert re.search(r":v?\d", service["image"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ())), name


def test_grafana_is_configured_with_existing_files_and_prometheus(config: dict[str, Any]):
    grafana = config["services"][GRAFANA]
    for mount in grafana["volumes"]:
        assert mount["type"] == "volume" or os.path.isdir(mount["source"]), mount
    assert grafana["depends_on"]["prometheus"]["condition"] == "service_healthy"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/password"
    assert "/run/secrets" in {mount["target"] for mount in grafana["volumes"]}


def test_every_service_reports_itself_healthy(stack: Stack):
    listed = [json.loads(line) for line in stack.ok("ps", "--format=json").splitlines()]
    states = {each["Service"]: each["Health"] for each in listed}
    assert {"app", "worker", "postgres", "redis", "prometheus", "alertmanager"} <= states.keys()
    assert set(states.values()) == {"healthy"}


def test_the_schema_is_migrated_before_the_service_starts(stack: Stack, config: dict[str, Any]):
    listed = stack.ok("ps", "--all", "--format=json", "migrate").splitlines()
    assert [json.loads(line)["ExitCode"] for line in listed] == [0]
    needs = config["services"]["app"]["depends_on"]
    assert needs["migrate"]["condition"] == "service_completed_successfully"
    found = requests.get(f"{stack.url('app')}/api/v1/readiness", timeout=10)
    assert found.status_code == 200, found.text
    assert "redis" in stack.ok("exec", "app", "printenv", "REDIS_URL")


def test_no_secret_appears_in_the_attributes_of_a_container(stack: Stack):
    told_to = {"postgres": "password", "app": "SECRET_KEY", "worker": "DATABASE_URL"}
    made = {stack.ok("exec", name, "cat", f"/run/secrets/{file}") for name, file in told_to.items()}
    assert len(made) == 3 and min(map(len, made)) >= 64
    with closing(docker.from_env()) as client:
        filters = {"label": f"com.docker.compose.project={stack.project}"}
        found = client.containers.list(all=True, filters=filters)
        told = json.dumps([each.attrs for each in found])
    assert len(found) >= 7
    assert not [secret for secret in made if secret in told]


def test_prometheus_scrapes_the_service_and_sends_alarms_to_the_alertmanager(stack: Stack):
    url = stack.url("prometheus")

    def answer(path: str) -> Any:
        return requests.get(f"{url}/api/v1/{path}", timeout=10).json()["data"]

    targets = eventually(
        lambda: [t for t in answer("targets")["activeTargets"] if t["health"] == "up"]
    )
    assert [t["labels"]["job"] for t in targets] == ["amani"]
    assert {g["name"] for g in answer("rules")["groups"]} >= {"service", "books", "delivery"}
    managers = eventually(lambda: answer("alertmanagers")["activeAlertmanagers"])
    assert [m["url"] for m in managers] == ["http://alertmanager:9093/api/v2/alerts"]
    status = requests.get(f"{stack.url('alertmanager')}/api/v2/status", timeout=10).json()
    assert "on-call" in status["config"]["original"]
