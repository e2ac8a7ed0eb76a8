"""No secret is visible on a host, in the output of a run, or on the operator's machine.

The real service is deployed, and one request to it fails, so that its logs are checked too.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.secrets.sources import parse
from tests.e2e.conftest import HOSTS
from tests.e2e.trial import Trial, invoke
from workshop.fleet.fleet import Fleet
from workshop.fleet.practice_host import PracticeHost

# Reads these files of /proc for every process, repeatedly, until the input ends. In Perl, which
# every Debian host has.
SAMPLER = """\
my %seen;
my $input = "";
vec($input, fileno(STDIN), 1) = 1;
until (select(my $ready = $input, undef, undef, 0.005)) {
    for my $path (map { glob "/proc/[0-9]*/$_" } @ARGV) {
        open(my $file, "<", $path) or next;
        local $/;
        $seen{<$file> // ""} = 1;
    }
}
print join("\\n", keys %seen);
"""

# Prints everything else on a host that could contain a secret.
LOOK = """\
for id in $(docker ps -aq); do docker inspect $id; docker logs $id 2>&1; docker top $id; done
for id in $(docker image ls -q); do docker inspect $id; docker history --no-trunc $id; done
for name in $(docker volume ls -q); do docker volume inspect $name; done
docker network inspect $(docker network ls -q)
find /var/lib/amani /home /root /tmp /var/log /etc -type f -size -5M -print -exec cat {} + 2>&1
ps auxeww
"""


@contextlib.contextmanager
def sampling(place: list[str], *files: str) -> Iterator[list[bytes]]:
    """Sample the processes of a place in the block; the list then holds the contents."""
    seen: list[bytes] = []
    with subprocess.Popen(
        [*place, "perl", "-e", SAMPLER, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield seen
        finally:
            seen.append(process.communicate(b"end\n", timeout=60)[0])


def on_host(host: PracticeHost) -> list[str]:
    return ["docker", "exec", "--interactive", host.outer.get(host.name).name]


@pytest.fixture(scope="module")
def trial(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    standing_fleet.up(HOSTS)
    standing_fleet.reset()
    made = Trial(standing_fleet, tmp_path_factory.mktemp("environments"))
    yield made
    made.close()


def test_a_deploy_exposes_no_secret(trial: Trial) -> None:
    secrets = parse(trial.fleet.secrets_file.read_text(), Path("secrets"))
    password = secrets["DATABASE_URL"].split(":")[2].split("@")[0]
    values = [*secrets.values(), password]
    name = f"--env={trial.fleet.name}"

    with contextlib.ExitStack() as watches:
        watched = {
            host.name: watches.enter_context(sampling(on_host(host), "cmdline", "environ"))
            for host in trial.hosts
        }
        # Without `environ`: the fleet's own database runs on this machine, with its password there.
        watched["operator"] = watches.enter_context(sampling([], "cmdline"))
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

    # The search covers the right places, and the service has its secrets.
    assert "docker" in places["operator"] and "gunicorn" in places["look at host1"]
    for host in trial.hosts:
        assert "journal" in places[f"look at {host.name}"]
        assert "secrets.json" in places[f"look at {host.name}"]
        assert "gunicorn" in places[host.name] and "sshd" in places[host.name]
    shown = "cat /run/secrets/SECRET_KEY"
    container = f"amani-{trial.fleet.name}-web-blue"
    mounted = trial.hosts[0].run(["docker", "exec", container, "sh", "-c", shown])
    assert mounted == secrets["SECRET_KEY"]
