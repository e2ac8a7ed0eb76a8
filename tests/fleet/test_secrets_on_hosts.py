"""No secret can be found on a host, in what the run said, or in what the operator's machine shows.

The service itself is deployed, and one of its requests fails, so that its own logs count too.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.fleet.fleet import Fleet
from deploy.fleet.host import PracticeHost
from deploy.secrets.sources import parse
from tests.fleet.conftest import HOSTS
from tests.fleet.trial import Trial, invoke

# Arguments and environment of every process, over and over, each line once; ends with its input.
SAMPLER = """\
import glob, os, select, sys
seen = set()
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            seen.add(open(path, "rb").read())
        except OSError:
            pass
sys.stdout.buffer.write(b"\\n".join(seen))
"""

# What people, tools and backups see of a host, besides its processes.
LOOK = """\
for id in $(docker ps -aq); do docker inspect $id; docker logs $id 2>&1; docker top $id; done
for id in $(docker image ls -q); do docker inspect $id; docker history --no-trunc $id; done
for name in $(docker volume ls -q); do docker volume inspect $name; done
docker network inspect $(docker network ls -q)
find /var/lib/amani /home /root /tmp /var/log /etc -type f -size -5M -print -exec cat {} + 2>&1
ps auxeww
"""


@contextlib.contextmanager
def sampling(command: list[str]) -> Iterator[list[bytes]]:
    """Watch the processes where `command` runs the sampler; the list then holds what was seen."""
    seen: list[bytes] = []
    with subprocess.Popen(
        [*command, "-c", SAMPLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield seen
        finally:
            seen.append(process.communicate(b"end\n", timeout=60)[0])


def on_host(host: PracticeHost) -> list[str]:
    return ["docker", "exec", "--interactive", host.container, "python3"]


@pytest.fixture(scope="module")
def trial(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    standing_fleet.up(HOSTS)
    standing_fleet.reset()
    made = Trial(standing_fleet, tmp_path_factory.mktemp("environments"))
    yield made
    made.close()


def test_no_secret_can_be_found_after_a_deploy(trial: Trial) -> None:
    secrets = parse(trial.fleet.secrets_file.read_text(), Path("secrets"))
    password = secrets["DATABASE_URL"].split(":")[2].split("@")[0]
    values = [*secrets.values(), password]
    name = f"--env={trial.fleet.name}"

    with contextlib.ExitStack() as watches:
        watched = {
            host.name: watches.enter_context(sampling(on_host(host))) for host in trial.hosts
        }
        watched["operator"] = watches.enter_context(sampling([sys.executable]))
        runs = [invoke("deploy", name, "--json"), invoke("deploy", name), invoke("status", name)]
    for host in trial.hosts:
        requests.get(f"http://{host.address}/api/v1/nothing", timeout=10)

    places = {where: seen[0].decode(errors="replace") for where, seen in watched.items()}
    places |= {f"look at {host.name}": host.run(["sh", "-c", LOOK]) for host in trial.hosts}
    places["output"] = "".join(run.output + run.errors for run in runs)
    places["logs"] = invoke("logs", name).text
    found = [where for where, text in places.items() if any(value in text for value in values)]
    assert [run.status for run in runs] == [0, 0, 0], runs[0].errors
    assert found == []

    # The search does look where something could be found, and the service does have its secrets.
    assert "docker" in places["operator"] and "gunicorn" in places["look at host1"]
    for host in trial.hosts:
        assert "journal" in places[f"look at {host.name}"]
        assert "secrets.json" in places[f"look at {host.name}"]
        assert "gunicorn" in places[host.name] and "sshd" in places[host.name]
    shown = "cat /run/secrets/SECRET_KEY"
    container = f"amani-{trial.fleet.name}-web-blue"
    mounted = trial.hosts[0].run(["docker", "exec", container, "sh", "-c", shown])
    assert mounted == secrets["SECRET_KEY"]
