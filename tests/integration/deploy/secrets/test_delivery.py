"""Secrets delivered to a host with a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.environment.model import Environment
from deploy.errors import EngineError
from deploy.hosts.engine import ContainerSpec, Mount
from deploy.hosts.local import LocalHost
from deploy.images.bases import ensure_bases
from deploy.secrets import Secret, Secrets, deliver, find_generation, prune, volume_name
from deploy.secrets.delivery import MOUNT_POINT

pytestmark = pytest.mark.engine

IMAGE = "python:3.13-slim-trixie"
FIRST = Secrets({"SECRET_KEY": Secret("s3same"), "DATABASE_URL": Secret("two\nlines\n")})
SECOND = Secrets({"SECRET_KEY": Secret("n3w-value")})

READ = """\
import os, json
found = {}
for name in sorted(os.listdir("/run/secrets")):
    path = "/run/secrets/" + name
    state = os.stat(path)
    found[name] = [open(path).read(), oct(state.st_mode & 0o7777), state.st_uid, state.st_gid]
for attempt in ("/run/secrets/SECRET_KEY", "/run/secrets/new"):
    try:
        open(attempt, "w")
        found["written"] = attempt
    except OSError:
        pass
print(json.dumps(found))
"""


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    ensure_bases([IMAGE])


@pytest.fixture
def host() -> Iterator[LocalHost]:
    local = LocalHost()
    yield local
    local.close()


@pytest.fixture
def environment(tmp_path: Path, host: LocalHost) -> Iterator[Environment]:
    made = Environment.model_validate(
        {
            "name": f"t{uuid4().hex[:8]}",
            "domain": "api.test",
            "directory": str(tmp_path / "amani"),
            "network": {"subnet": "172.29.77.0/24"},
            "hosts": ({"name": "here", "connection": "local"},),
        }
    )
    yield made
    for container in host.engine.containers({"amani.environment": made.name}):
        host.engine.remove(container["Id"])
    prune(host, made, set())


def run(host: LocalHost, environment: Environment, generation: str, user: str) -> str:
    """The status and output of a program that reads the secrets in a container as `user`."""
    container = host.engine.create(
        ContainerSpec(
            name=f"{environment.name}-{uuid4().hex[:8]}",
            image=IMAGE,
            command=("python3", "-c", READ),
            user=user,
            labels={"amani.environment": environment.name},
            mounts=(Mount(volume_name(environment, generation), MOUNT_POINT),),
            restart="no",
        )
    )
    host.engine.start(container)
    status = host.engine.wait(container, 30)
    logs = host.engine.logs(container)
    host.engine.remove(container)
    return f"{status} {logs}"


def test_the_service_reads_its_secrets_and_cannot_change_them(
    host: LocalHost, environment: Environment
) -> None:
    generation = deliver(host, environment, FIRST, image=IMAGE)
    status, _, output = run(host, environment, generation, "10001:10001").partition(" ")
    assert status == "0", output
    assert json.loads(output) == {
        "DATABASE_URL": ["two\nlines\n", "0o400", 10001, 10001],
        "SECRET_KEY": ["s3same", "0o400", 10001, 10001],
    }


def test_another_user_of_the_container_reads_nothing(
    host: LocalHost, environment: Environment
) -> None:
    generation = deliver(host, environment, FIRST, image=IMAGE)
    assert "PermissionError" in run(host, environment, generation, "10002:10002")


def test_repeated_delivery_changes_nothing(host: LocalHost, environment: Environment) -> None:
    assert find_generation(host, environment, FIRST) is None
    generation = deliver(host, environment, FIRST, image=IMAGE)
    assert find_generation(host, environment, FIRST) == generation
    register = Path(environment.folder, "secrets.json").read_bytes()
    assert deliver(host, environment, FIRST, image=IMAGE) == generation
    assert Path(environment.folder, "secrets.json").read_bytes() == register


def test_changed_values_create_a_generation_and_keep_the_old_one(
    host: LocalHost, environment: Environment
) -> None:
    old = deliver(host, environment, FIRST, image=IMAGE)
    new = deliver(host, environment, SECOND, image=IMAGE)
    assert old != new
    assert "s3same" in run(host, environment, old, "10001")
    assert "n3w-value" in run(host, environment, new, "10001")
    assert find_generation(host, environment, FIRST) == old
    assert find_generation(host, environment, SECOND) == new


def test_the_register_contains_no_names_or_values(
    host: LocalHost, environment: Environment
) -> None:
    generation = deliver(host, environment, FIRST, image=IMAGE)
    path = Path(environment.folder, "secrets.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "s3same" not in path.read_text() and "SECRET_KEY" not in path.read_text()
    assert host.engine.containers({"amani.environment": environment.name}) == []
    assert generation in path.read_text()


def test_pruning_removes_generations_that_are_neither_kept_nor_in_use(
    host: LocalHost, environment: Environment
) -> None:
    needed = deliver(host, environment, FIRST, image=IMAGE)
    gone = deliver(host, environment, SECOND, image=IMAGE)
    kept = deliver(host, environment, Secrets({"A": Secret("1")}), image=IMAGE)
    spec = ContainerSpec(
        name=f"{environment.name}-holder",
        image=IMAGE,
        command=("true",),
        labels={"amani.environment": environment.name},
        mounts=(Mount(volume_name(environment, needed), MOUNT_POINT),),
    )
    host.engine.create(spec)
    prune(host, environment, {kept})
    present = {
        generation: host.engine.volume(volume_name(environment, generation)) is not None
        for generation in (needed, gone, kept)
    }
    assert present == {needed: True, gone: False, kept: True}
    assert find_generation(host, environment, SECOND) is None


def test_an_interrupted_delivery_is_ignored_and_pruned(
    host: LocalHost, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise EngineError("the connection was cut")

    with monkeypatch.context() as patch:
        patch.setattr(host.engine, "copy_into", cut)
        with pytest.raises(EngineError):
            deliver(host, environment, FIRST, image=IMAGE)
    path = Path(environment.folder, "secrets.json")
    (broken,) = json.loads(path.read_text())["generations"]
    assert find_generation(host, environment, FIRST) is None
    whole = deliver(host, environment, FIRST, image=IMAGE)
    prune(host, environment, {whole})
    assert host.engine.volume(volume_name(environment, broken)) is None
    assert list(json.loads(path.read_text())["generations"]) == [whole]


def test_a_volume_removed_by_hand_is_delivered_again(
    host: LocalHost, environment: Environment
) -> None:
    first = deliver(host, environment, FIRST, image=IMAGE)
    host.engine.remove_volume(volume_name(environment, first))
    assert find_generation(host, environment, FIRST) is None
    assert deliver(host, environment, FIRST, image=IMAGE) != first


@pytest.mark.parametrize("content", ["", "{}", "[]", "nonsense", '{"generations": {"a": 1}}'])
def test_an_invalid_register_is_treated_as_empty(
    host: LocalHost, environment: Environment, content: str
) -> None:
    path = Path(environment.folder, "secrets.json")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert find_generation(host, environment, FIRST) is None
    assert deliver(host, environment, FIRST, image=IMAGE)
