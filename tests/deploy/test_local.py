"""The README's first command, on this machine's engine, beside whatever `local` runs there."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.checkout import ROOT
from deploy.events import Event, Events
from deploy.operations.local import up
from deploy.operations.maintenance import remove
from deploy.operations.smoke import smoke

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment that differs from `local` in its name, port, network and folder alone."""
    name = f"local-{secrets.token_hex(3)}"
    file = (ROOT / "deploy" / "environments" / "local.yml").read_text()
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
    remove(name, Events(), volumes=True)


def test_the_service_stands_behind_the_proxy_and_a_second_run_changes_nothing(environment: str):
    heard: list[Event] = []
    first = up(Events(heard.append), environment)

    url = first.environment.url
    health = requests.get(f"{url}/api/v1/health", timeout=10)
    assert (health.status_code, health.json()["status"]) == (200, "pass")
    version = requests.get(f"{url}/api/v1/version", timeout=10).json()
    assert version["version"] == first.plan.version
    assert requests.get(f"{url}/metrics", timeout=10).status_code in (403, 404)

    findings = smoke(environment, Events())
    assert [found for found in findings if not found.passed] == []
    assert {"version", "migrations", "openapi", "security headers"} <= {f.check for f in findings}

    second = up(Events(), environment)
    assert first.applied
    assert second.plan.empty
