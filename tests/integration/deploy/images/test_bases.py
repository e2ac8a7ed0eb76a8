"""Base images in a Docker Engine: packages, users and settings that deployments rely on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from docker import APIClient
from docker.errors import NotFound

from deploy.hosts.local import LocalHost
from deploy.images import bases
from deploy.images.debian import File, make_image


@pytest.mark.engine
def test_present_base_images_are_not_rebuilt(engine: APIClient):
    bases.ensure_bases()
    before = {
        name: engine.images(name, quiet=True) for name in (b.name for b in bases.list_bases())
    }
    announced: list[str] = []

    bases.ensure_bases(announce=announced.append)

    assert announced == []
    assert {name: engine.images(name, quiet=True) for name in before} == before


@pytest.mark.engine
def test_docker_hub_is_tried_once_and_an_image_of_another_recipe_is_rebuilt(
    engine: APIClient, make_image: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    nonce = secrets.token_hex(4)
    names = [f"test-base-{nonce}:{number}" for number in range(3)]
    current, outdated, missing = (bases.Base(name, (), ()) for name in names)
    make_image(current.name, {"amani.base.recipe": current.recipe})
    make_image(outdated.name, {"amani.base.recipe": "another"})
    made: list[str] = []
    monkeypatch.setattr(bases, "list_bases", lambda: (current, outdated, missing))
    monkeypatch.setattr(bases, "make_image", lambda name, *_, **__: made.append(name))
    announced: list[str] = []

    bases.ensure_bases(announce=announced.append)

    assert made == [outdated.name, missing.name]
    assert sum("Docker Hub" in line for line in announced) <= 1


@pytest.mark.engine
@pytest.mark.timeout(400)
def test_an_image_contains_its_packages_files_and_settings_and_no_mirror(engine: APIClient):
    name = f"test-made-{secrets.token_hex(4)}:1"
    make_image(
        name,
        ["netbase"],
        files={"/opt/tool": File("#!/bin/sh\nwc -l </etc/protocols\ncat /stamp\n", 0o755)},
        customise="echo 'made here' >/stamp",
        changes=['ENTRYPOINT ["/opt/tool"]', "USER nobody", "ENV LANG=C.UTF-8"],
        labels={"test": "yes"},
        announce=lambda _: None,
    )
    try:
        image = engine.images(name)[0]
        assert image["Labels"] == {"test": "yes"}
        with container(engine, name) as started:
            assert engine.wait(started, timeout=30)["StatusCode"] == 0
            lines = engine.logs(started).decode().splitlines()
            assert int(lines[0]) > 10 and lines[1] == "made here"
            with pytest.raises(NotFound):
                engine.get_archive(started, "/etc/apt/sources.list")
    finally:
        engine.remove_image(name, force=True)


@pytest.mark.engine
def test_postgres_starts_from_a_password_file_and_stops_cleanly(engine: APIClient):
    with container(
        engine,
        "postgres:17-trixie",
        environment={"POSTGRES_USER": "amani", "POSTGRES_DB": "ledger", "POSTGRES_PASSWORD": "pw"},
    ) as started:
        query = ["psql", "-h", "127.0.0.1", "-U", "amani", "-d", "ledger", "-Atc", "select 40 + 2"]
        answer = until(lambda: run_in(started, query, PGPASSWORD="pw"), lambda out: out == "42")
        assert answer == "42"
        assert run_in(started, ["stat", "-c", "%U", "/proc/1"]) == "postgres"
        wrong = run_in(started, query, PGPASSWORD="guessed")
        assert "password authentication failed" in wrong
        engine.stop(started, timeout=30)
        assert engine.inspect_container(started)["State"]["ExitCode"] == 0
        assert b"database system is shut down" in engine.logs(started)


@pytest.mark.engine
def test_redis_answers_its_network_and_runs_as_its_own_user(engine: APIClient):
    with container(engine, "redis:8-trixie") as started:
        address = engine.inspect_container(started)["NetworkSettings"]["IPAddress"]
        ping = ["redis-cli", "-h", address, "ping"]
        assert until(lambda: run_in(started, ping), lambda out: out == "PONG") == "PONG"
        assert run_in(started, ["stat", "-c", "%U", "/proc/1"]) == "redis"


@pytest.mark.engine
def test_the_haproxy_image_contains_its_programs_and_its_folder(engine: APIClient):
    command = ["sh", "-c", "haproxy -v && perl -v && ls -d /usr/local/etc/haproxy && id -un"]
    with container(engine, "haproxy:3.0-trixie", command) as started:
        assert engine.wait(started, timeout=30)["StatusCode"] == 0
        lines = engine.logs(started).decode().splitlines()
    assert lines[0].startswith("HAProxy version 3.0")
    assert lines[-2:] == ["/usr/local/etc/haproxy", "haproxy"]


@pytest.mark.engine
def test_python_makes_virtual_environments_and_installs_into_itself(engine: APIClient):
    command = [
        "sh",
        "-ec",
        "python -m venv /tmp/v; /tmp/v/bin/pip -V; pip install -q --no-index pip",
    ]
    with container(engine, "python:3.13-slim-trixie", command) as started:
        assert engine.wait(started, timeout=60)["StatusCode"] == 0, engine.logs(started)
        assert b"(python 3.13)" in engine.logs(started)


@contextmanager
def container(engine: APIClient, image: str, command=None, environment=None) -> Iterator[str]:
    bases.ensure_bases(
        [image] if image in {base.name for base in bases.list_bases()} else ["registry:2"]
    )
    made = engine.create_container(image, command, environment=environment)["Id"]
    try:
        engine.start(made)
        yield made
    finally:
        engine.remove_container(made, force=True, v=True)


def run_in(container: str, command: list[str], **environment: str) -> str:
    assignments = [f"{name}={value}" for name, value in environment.items()]
    with closing(LocalHost()) as machine:
        return machine.engine.run_in(container, ["env", *assignments, *command]).output.strip()


def until(ask: Callable[[], str], wanted: Callable[[str], bool]) -> str:
    """Repeat a call until its result is accepted, at most 30 s; the last result."""
    deadline = time.monotonic() + 30
    while not wanted(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer
