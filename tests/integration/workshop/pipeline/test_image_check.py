"""The image check refuses an image with a wrong configuration, size or layer."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator

import docker
import pytest

from deploy.errors import GateRefused
from deploy.images.bases import ensure_bases
from workshop.pipeline.image_check import OWN_BUDGET, Size, check, over_budget

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
BASE = "python:3.13-slim-trixie"
KEY = "-----BEGIN PRIVATE KEY-----\n" + "QUJD" * 20 + "\n-----END PRIVATE KEY-----\n"
INFO = '{"version":"1","commit":"c","build_time":"t","build_number":"7","branch":"main"}'
LABELS = "version revision created title description source".split()


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    ensure_bases([BASE])
    yield client
    client.close()


@pytest.fixture
def build(engine: docker.DockerClient) -> Iterator:
    """Builds an image from lines of a Dockerfile and files."""
    names: list[str] = []

    def make(lines: list[str], **files: str) -> str:
        files = {"Dockerfile": "\n".join([f"FROM {BASE}", *lines]), **files}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content.encode())
                archive.addfile(entry, io.BytesIO(content.encode()))
        buffer.seek(0)
        name = f"amani-check-test:{uuid.uuid4().hex[:12]}"
        engine.images.build(fileobj=buffer, custom_context=True, tag=name, rm=True, forcerm=True)
        names.append(name)
        return name

    yield make
    for name in names:
        engine.images.remove(name, force=True)


def labels() -> str:
    named = [f'org.opencontainers.image.{name}="x"' for name in LABELS]
    return " ".join(["LABEL", *named, 'amani.schema.head="0001"'])


SOUND = [
    labels(),
    "COPY build-info.json /app/build-info.json",
    "HEALTHCHECK CMD true",
    "USER 10001:10001",
]


def test_a_valid_image_passes_and_its_floor_is_reported(build):
    size = check(build(SOUND, **{"build-info.json": INFO}), BASE)
    assert size.floor == size.base <= size.image
    assert "floor" in str(size)


def test_a_secret_that_a_later_layer_deletes_is_found(build):
    lines = ["COPY secret /app/.env", "COPY secret /app/note", "RUN rm /app/.env /app/note", *SOUND]
    image = build(lines, secret=KEY, **{"build-info.json": INFO})
    with pytest.raises(GateRefused) as refused:
        check(image, BASE)
    assert "a layer holds /app/.env" in refused.value.message
    assert "a key or token in /app/note" in refused.value.message


def test_root_and_missing_labels_are_found(build):
    with pytest.raises(GateRefused) as refused:
        check(build(["ENV API_TOKEN=hunter2"]), BASE)
    for words in ("runs as root", "no health check", "amani.schema.head", "build-info.json"):
        assert words in refused.value.message
    assert "holds API_TOKEN" in refused.value.message
    assert "hunter2" not in refused.value.message


def test_the_budget_limits_the_size_above_the_floor():
    assert over_budget(Size(100 + OWN_BUDGET, 60, 40)) == []
    assert over_budget(Size(101 + OWN_BUDGET, 60, 40)) != []
