"""The image, run with the hardening of production."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amani_app.adapters.database.revisions import read_revisions
from deploy.errors import GateRefused
from deploy.events import Events
from deploy.images.build import build
from tests.support.service_fixtures import ROOT
from tests.support.waiting import eventually
from workshop.pipeline.image_check import require_extras

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
ARGUMENTS = {
    "BUILD_VERSION": "1.2.3",
    "BUILD_SHA": "c0ffee",
    "BUILD_TIME": "2026-11-24T08:00:00Z",
    "BUILD_NUMBER": "7",
    "BUILD_BRANCH": "main",
}


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/usr/bin/docker", *words], capture_output=True, text=True, timeout=120)


def ok(*words: str) -> str:
    done = docker(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    name = f"amani-image-test:{uuid.uuid4().hex[:12]}"
    build(ROOT, ARGUMENTS, [name], events=Events())
    yield name
    docker("rmi", "--force", name)


@pytest.fixture
def volume() -> Iterator[str]:
    name = ok("volume", "create", f"amani-image-test-{uuid.uuid4().hex[:12]}")
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def container(image: str, volume: str) -> Iterator[str]:
    """The id of a container that serves a migrated database."""
    mount = f"--volume={volume}:/data"
    ok("run", "--rm", *HARDENED, mount, image, "flask", "db", "upgrade")
    name = ok("run", "--detach", *HARDENED, mount, image)
    yield name
    docker("rm", "--force", name)


def get(container: str, path: str) -> tuple[int, Any]:
    code = (
        "import sys,http.client as h; c=h.HTTPConnection('127.0.0.1',8000);"
        "c.request('GET',sys.argv[1]); a=c.getresponse(); print(a.status); print(a.read().decode())"
    )
    done = docker("exec", container, "python", "-IS", "-c", code, path)
    if done.returncode:
        return 0, None
    status, _, body = done.stdout.partition("\n")
    return int(status), json.loads(body)


def inspect(name: str) -> Any:
    return json.loads(ok("inspect", name))[0]


def test_container_runs_read_only_without_capabilities_as_fixed_user(container: str) -> None:
    eventually(lambda: get(container, "/api/v1/readiness")[0] == 200)
    assert get(container, "/api/v1/health")[1]["status"] == "pass"
    processes = ok("top", container, "-eo", "pid,uid,args").splitlines()[1:]
    assert len(processes) >= 3
    assert {line.split()[1] for line in processes} == {"10001"}


def test_version_reports_build_arguments(container: str, image: str) -> None:
    eventually(lambda: get(container, "/api/v1/ping")[0] == 200)
    assert get(container, "/api/v1/version")[1] == {
        "version": "1.2.3",
        "commit": "c0ffee",
        "build_time": "2026-11-24T08:00:00Z",
        "build_number": "7",
        "branch": "main",
        "schema_head": read_revisions()[0],
    }
    labels = inspect(image)["Config"]["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[prefix + "version"] == "1.2.3"
    assert labels[prefix + "revision"] == "c0ffee"
    assert labels[prefix + "created"] == "2026-11-24T08:00:00Z"
    assert all(labels[prefix + name] for name in ("title", "description", "source"))
    assert labels["amani.schema.head"] == read_revisions()[0]


def test_engine_reports_container_health(container: str) -> None:
    eventually(lambda: inspect(container)["State"]["Health"]["Status"] == "healthy", 60)


def test_container_stops_cleanly_on_sigterm(container: str) -> None:
    eventually(lambda: get(container, "/api/v1/ping")[0] == 200)
    ok("stop", "--time=20", container)
    assert inspect(container)["State"]["ExitCode"] == 0


def test_gunicorn_is_pid_1(image: str) -> None:
    config = inspect(image)["Config"]
    assert config["Cmd"] == ["gunicorn", "wsgi:app"]
    assert config["Entrypoint"] is None
    assert config["User"] == "10001:10001"


def test_image_contains_no_installers_and_no_deployer(image: str) -> None:
    found = ok("run", "--rm", image, "python", "-c", "help('modules')")
    for absent in ("pip ", "setuptools", "fabric", "invoke", "paramiko", "docker", "pytest"):
        assert f"\n{absent}" not in found
    tree = ok("run", "--rm", image, "find", "/app", "-name", "*.pyc", "-prune", "-o", "-print")
    assert "/app/amani_app/factory.py" in tree
    for absent in ("/app/deploy", "/app/tests", "/app/requirements.txt", "/app/.git"):
        assert absent not in tree


def test_image_contains_no_build_secrets(image: str) -> None:
    history = ok("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    assert "PIP_CERT=/run/secrets/ca_bundle" not in history
    left = ok("run", "--rm", image, "sh", "-c", "ls /run/secrets /etc/pip.conf 2>/dev/null; true")
    assert left == ""


def test_bytecode_is_compiled_in_the_image(container: str, image: str) -> None:
    done = docker("run", "--rm", *HARDENED, image, "python", "-v", "-c", "import wsgi")
    compiled = [line for line in done.stderr.splitlines() if "code object from '" in line]
    assert [line for line in compiled if ".pyc" not in line] == []


def test_secret_file_provides_a_setting(image: str, tmp_path: Path) -> None:
    secret = tmp_path / "DATABASE_URL"
    secret.write_text("sqlite:////tmp/from-a-secret.sqlite3")
    secret.chmod(0o644)
    code = "import wsgi; print(wsgi.app.extensions['amani'].engine.url)"
    found = ok(
        "run",
        "--rm",
        f"--volume={secret}:/run/secrets/DATABASE_URL:ro",
        image,
        "python",
        "-c",
        code,
    )
    assert found.endswith("/tmp/from-a-secret.sqlite3")


def test_wrong_schema_label_fails_the_build(image: str) -> None:
    done = subprocess.run(
        ["/usr/bin/docker", "build", "--build-arg=SCHEMA_HEAD=nonsense", str(ROOT)],
        capture_output=True,
        text=True,
        env={"DOCKER_BUILDKIT": "1", "PATH": "/usr/bin:/bin", "HOME": "/root"},
        timeout=300,
    )
    assert done.returncode != 0
    assert "SCHEMA_HEAD=nonsense, but the migrations end at" in done.stderr


def test_image_without_extras_has_no_telemetry(image: str) -> None:
    """`ci.image` builds the image with the extras and runs the same check."""
    with pytest.raises(GateRefused, match="SENTRY_DSN|OTEL_EXPORTER_OTLP_ENDPOINT"):
        require_extras(image)
