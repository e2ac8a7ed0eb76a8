"""The planner's simulated steps against the real ones, on this machine's engine.

Each step of real plans is applied to a host and, as a simulation, to facts; the facts that the
survey then gathers must be those that the simulation expects. Not compared are `Pull`, which needs
a registry, and `BackUp`, which changes no facts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.environment.model import Environment
from deploy.events import Events
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.hosts.local import LocalHost
from deploy.observe.survey import gather
from deploy.planning.blue_green import BlueGreen
from deploy.secrets import Secrets, load_secrets, prune
from deploy.state import containers
from deploy.state.facts import Facts, HostFacts, ImageFacts
from deploy.state.release import ImageRef, Release
from deploy.steps.proxy import RecordLive
from deploy.steps.schema import Downgrade
from tests.support import planned_world
from tests.support.planned_world import EFFECTS, World, bare
from tests.support.proxy_stand import Stand, environment_of, free_port

pytestmark = pytest.mark.engine

BASE = "python:3.13-slim-trixie"
SERVICE = """
import json, os, signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        schema = open("/data/schema").read() if os.path.exists("/data/schema") else ""
        body = json.dumps({"version": os.environ["VERSION"], "schema": schema}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
MOVE = ["python3", "-c", "import sys; open('/data/schema', 'w').write(sys.argv[1])"]
KNOWN_ELSEWHERE = {"pull", "backup"}


class Rehearsal:
    """A host and its simulation, which get the same steps."""

    def __init__(self, environment: Environment, host: LocalHost) -> None:
        self.environment = environment
        self.host = host
        self.greeting = "hello"
        self.releases: dict[str, Release] = {}
        self.kinds: set[str] = set()
        self.world = World(environment, bare(environment))

    @property
    def secrets(self) -> Secrets:
        environ = {"AMANI_SECRET_GREETING": self.greeting}
        return load_secrets(self.environment, environ=environ)

    def facts(self) -> Facts:
        return gather(self.environment, {"here": self.host}, self.secrets)

    def deploy(self, release: Release, **options: Any) -> None:
        """Plan from the real facts and from the simulated ones, and apply each step to both."""
        facts = self.facts()
        self.change(images=facts.hosts["here"].images)
        plan = BlueGreen().plan(self.environment, release, facts, **options)
        simulated = BlueGreen().plan(self.environment, release, self.world.facts, **options)
        assert [step.kind for step in plan.steps()] == [step.kind for step in simulated.steps()]
        pairs = list(zip(plan.steps(), simulated.steps(), strict=True))
        self.apply(release, pairs)
        left = BlueGreen().plan(self.environment, release, self.facts()).steps()
        # The image of a replaced container can be removed only after the plan.
        assert {step.kind for step in left} <= {"prune"}

    def change(self, **values: Any) -> None:
        host = replace(self.world.facts.hosts["here"], **values)
        self.world.facts = replace(self.world.facts, hosts={"here": host})

    def apply(self, release: Release, pairs: list[tuple[Step, Step]]) -> None:
        self.releases[release.image.digest] = release
        run = Run(
            id=f"rehearsal{time.monotonic_ns()}",
            kind="deploy",
            environment=self.environment,
            hosts={"here": self.host},
            release=release,
            secrets=self.secrets,
            events=Events(),
            plan_hash="",
            requested_by="test",
            generations={"here": self.facts().hosts["here"].secrets or ""},
        )
        for real, simulated in pairs:
            real.apply(run)
            self.world.apply(simulated, release)
            self.kinds.add(real.kind)
            self.compare(real)

    def compare(self, step: Step) -> None:
        """The real facts, once the proxy's next checks have ended, are those of the simulation."""
        expected, deadline = self.view(self.world.facts), time.monotonic() + 5
        while (found := self.view(self.facts())) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found == expected, step

    def view(self, facts: Facts) -> Mapping[str, Any]:
        """The part of the facts that plans depend on, without random names."""
        host = facts.hosts["here"]
        return {
            "schema": facts.schema,
            "live": host.live_slot,
            "settled": host.proxy_settled,
            "running": (host.proxy.running, host.proxy.present, host.proxy.maintenance),
            "recorded": dict(host.proxy.recorded_weights),
            "servers": {
                slot: (server.state, server.up, server.weight)
                for slot, server in host.proxy.servers.items()
            },
            "containers": {found.name: self.shown(host, found) for found in host.containers},
            "images": {found.id for found in host.images if _is_ours(found)},
            "secrets": (bool(host.secrets), len(host.generations)),
            "records": [(r.version, r.digest, r.outcome, r.strategy) for r in host.records],
        }

    def shown(self, host: HostFacts, found: Any) -> tuple[Any, ...]:
        if found.slot is None:
            return (found.role, found.state)
        wanted = containers.make_slot_container(
            self.environment,
            found.role,
            found.slot,
            self.releases[found.digest],
            host.secrets or "",
        )
        same = found.config == wanted.labels[containers.CONFIG]
        return (found.role, found.slot, found.version, found.digest, found.state, same)


def _is_ours(image: ImageFacts) -> bool:
    return any(tag.startswith("simulated:") for tag in image.tags)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return environment_of(
        tmp_path,
        free_port(),
        hosts=[{"name": "here", "connection": "local", "roles": ["web", "worker"]}],
        image={"repository": "simulated"},
        roles={
            "web": {"command": ["python3", "-c", SERVICE], "stop_timeout": 5},
            "worker": {"command": ["sleep", "infinity"], "stop_timeout": 1},
        },
        volumes={"data": "/data"},
        secrets=["GREETING"],
        migrations={
            "command": MOVE,
            "downgrade_command": MOVE,
            "current_command": ["cat", "/data/schema"],
            "schema_path": "/schema",
        },
        backups={"policy": "never"},
        retention={"releases": 1},
    )


@pytest.fixture
def build() -> Iterator[Callable[..., Release]]:
    """Builds a release of the service: an image with the number in its version."""
    made: list[str] = []

    def build(number: int, head: str) -> Release:
        planned = planned_world.release(number, head)
        base = _docker("create", BASE)
        changes = [f"ENV VERSION={planned.version}"]
        changes += [f"LABEL {name}='{value}'" for name, value in planned.labels.items()]
        options = [f"--change={change}" for change in changes]
        made.append(_docker("commit", *options, base, f"simulated:{planned.version}"))
        _docker("rm", base)
        return replace(planned, image=ImageRef("simulated", made[-1], registered=False))

    yield build
    for digest in made:
        subprocess.run(["docker", "rmi", digest], capture_output=True, check=False)


def _docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def rehearsal(environment: Environment) -> Iterator[Rehearsal]:
    host = LocalHost("here")
    try:
        yield Rehearsal(environment, host)
    finally:
        labels = {containers.ENVIRONMENT: environment.name}
        for found in host.engine.containers(labels):
            host.engine.remove(found["Id"])
        Stand(host, environment).clear()
        prune(host, environment, set())
        host.engine.remove_volume(containers.volume_name(environment, "data"))
        host.close()


@pytest.mark.timeout(300)
def test_real_steps_and_simulated_steps_lead_to_the_same_facts(
    build: Callable[..., Release], rehearsal: Rehearsal
) -> None:
    first = build(1, "0001")
    rehearsal.deploy(first)
    rehearsal.deploy(build(2, "0001"))
    rehearsal.deploy(first, kind="rollback")

    stopped = rehearsal.environment.retention.model_copy(update={"standby": "stopped"})
    rehearsal.environment = rehearsal.environment.model_copy(update={"retention": stopped})
    rehearsal.world.environment = rehearsal.environment
    third = build(3, "0002")
    rehearsal.deploy(third)

    rehearsal.greeting = "good day"
    rehearsal.change(secrets="")
    rehearsal.deploy(third)

    image = third.image
    live = rehearsal.facts().hosts["here"].live_slot
    assert live is not None
    downgrade = Downgrade("here", "0001", "0002", image.repository, image.digest, False)
    record = RecordLive("here", live)
    rehearsal.apply(third, [(downgrade, downgrade), (record, record)])

    assert rehearsal.kinds == {step.kind for step in EFFECTS} - KNOWN_ELSEWHERE
