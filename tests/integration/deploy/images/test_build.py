"""Image builds with BuildKit, of small checkouts."""

from __future__ import annotations

import hashlib
import http.server
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient

from deploy.events import Event, Events
from deploy.images import build

DOCKERFILE = """\
ARG BASE=python:3.13-slim-trixie
FROM ${BASE}
ARG BUILD_VERSION
ARG SCHEMA_HEAD
LABEL org.opencontainers.image.version=$BUILD_VERSION amani.schema.head=$SCHEMA_HEAD
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "one.py").write_text(
        '"""Class: expand"""\nrevision = "one"\ndown_revision = None\n'
    )
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


@pytest.fixture
def reference(engine: APIClient) -> Iterator[str]:
    name = f"test-build-{secrets.token_hex(4)}:1"
    yield name
    if engine.images(name):
        engine.remove_image(name, force=True)


@pytest.mark.engine
def test_arguments_and_the_schema_head_reach_the_image(engine, checkout, reference):
    heard: list[Event] = []

    built = build.build(
        checkout, {"BUILD_VERSION": "1.2.3"}, [reference], events=Events(heard.append)
    )

    image = engine.images(reference)[0]
    assert (built.id, built.references) == (image["Id"], (reference,))
    assert image["Labels"] == {
        **image["Labels"],
        "org.opencontainers.image.version": "1.2.3",
        "amani.schema.head": "one",
    }
    assert any("load build definition" in event.text for event in heard)


@pytest.mark.engine
def test_pip_configuration_is_used_by_the_build_and_not_stored_in_the_image(
    engine, checkout, reference, tmp_path, monkeypatch
):
    password = secrets.token_hex(12)
    bundle = tmp_path / "ca.pem"
    authorities = secrets.token_hex(12)
    bundle.write_text(authorities)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://me:{password}@mirror.test/simple")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    nonce = secrets.token_hex(8)  # a secret is no part of the build cache's key
    (checkout / "Dockerfile").write_text(DOCKERFILE + f"""\
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle \\
    echo {nonce} && test -s /run/secrets/ca_bundle \\
 && pip config list | grep -qx "global.cert='/run/secrets/ca_bundle'" \\
 && pip config list | grep ^global.index-url= | sha256sum | cut -c1-64 >/seen
""")
    heard: list[Event] = []

    build.build(checkout, {}, [reference], events=Events(heard.append))

    line = f"global.index-url='https://me:{password}@mirror.test/simple'\n"
    expected = hashlib.sha256(line.encode()).hexdigest()
    container = engine.create_container(reference, ["cat", "/seen"])["Id"]
    try:
        engine.start(container)
        engine.wait(container)
        assert engine.logs(container).decode().strip() == expected
        exported = b"".join(engine.get_image(reference))
    finally:
        engine.remove_container(container, force=True)
    assert password.encode() not in exported
    assert authorities.encode() not in exported
    assert password not in str(engine.history(reference)) + str(heard)


@pytest.mark.engine
def test_a_package_index_on_loopback_is_reachable_from_the_build(checkout, reference, monkeypatch):
    asked: list[str] = []

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    name = f"absent-{secrets.token_hex(4)}"
    (checkout / "Dockerfile").write_text(
        DOCKERFILE + "RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf "
        f"! pip download --retries 0 --no-deps {name}\n"
    )
    try:
        build.build(checkout, {}, [reference], events=Events())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == [f"/simple/{name}/"]


@pytest.mark.engine
def test_a_failed_build_reports_its_output(checkout, reference, engine):
    with (checkout / "Dockerfile").open("a") as file:
        file.write("RUN echo 'the disk is on fire' && exit 9\n")

    with pytest.raises(build.BuildFailed, match="the disk is on fire"):
        build.build(checkout, {}, [reference], events=Events())

    assert not engine.images(reference)
