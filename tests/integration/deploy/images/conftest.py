"""A real registry on loopback, and small images to put into it."""

from __future__ import annotations

import io
import json
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import requests
from docker import APIClient

from deploy.images.bases import ensure_bases


@pytest.fixture(scope="session")
def engine() -> Iterator[APIClient]:
    client = docker.from_env()
    yield client.api
    client.close()


@pytest.fixture(scope="session")
def start_registry(engine: APIClient) -> Iterator[Callable[..., str]]:
    """Starts a registry with settings (`REGISTRY_*`) and files; returns its `127.0.0.1:port`."""
    ensure_bases(["registry:2"])
    started: list[str] = []

    def start(environment: dict[str, str] | None = None, files: dict[str, bytes] | None = None):
        container = engine.create_container(
            "registry:2",
            name=f"test-registry-{secrets.token_hex(4)}",
            environment=environment or {},
            ports=[5000],
            host_config=engine.create_host_config(port_bindings={5000: ("127.0.0.1",)}),
        )["Id"]
        started.append(container)
        engine.put_archive(container, "/etc/docker/registry", _tar(files or {}))
        engine.start(container)
        port = engine.inspect_container(container)["NetworkSettings"]["Ports"]["5000/tcp"][0]
        address = f"127.0.0.1:{port['HostPort']}"
        deadline = time.monotonic() + 20
        while True:
            try:
                requests.get(f"http://{address}/v2/", timeout=2)
                return address
            except requests.RequestException:
                if time.monotonic() > deadline:
                    pytest.fail(f"no registry: {engine.logs(container).decode()}")

    yield start
    for container in started:
        engine.remove_container(container, force=True, v=True)


@pytest.fixture(scope="session")
def registry(start_registry: Callable[..., str]) -> str:
    return start_registry()


@pytest.fixture
def make_image(engine: APIClient, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes an image of one small file, with labels; returns its reference."""
    made: list[str] = []

    def make(reference: str, labels: dict[str, str]) -> str:
        repository, _, tag = reference.rpartition(":")
        archive = tmp_path / "root.tar"
        archive.write_bytes(_tar({"content": reference.encode()}))
        changes = [f"LABEL {key}={json.dumps(value)}" for key, value in labels.items()]
        engine.import_image_from_file(str(archive), repository, tag, changes)
        made.append(reference)
        return reference

    yield make
    for reference in made:
        engine.remove_image(reference, force=True)


def _tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()
