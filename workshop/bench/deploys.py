"""How long a deploy and a rollback take, beside what no deployer could do in less."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deploy.environment.model import Environment
from deploy.errors import DeployError
from deploy.events import Events
from deploy.hosts.engine import ContainerSpec
from deploy.hosts.host import Host
from deploy.operations.candidates import find_candidate
from deploy.operations.host_session import open_session
from deploy.secrets import load_secrets
from deploy.state import containers
from workshop.bench import stage

FLOOR_PORT = 18000
PATIENCE = 60.0
PEER = {"deploy": 5.2, "rollback": 2.2}
"""Seconds that the best-known peer, Kamal 2.7, took on such a host, under load."""


@dataclass
class _Round:
    """What one round measured: a deploy, the rollback after it, and the floors between them."""

    deploy: stage.Outcome
    rollback: stage.Outcome
    create: float
    """Seconds from creating a container of the release to its first healthy answer."""
    start: float
    """The same from starting one that was stopped."""


@dataclass
class _Series:
    rounds: list[_Round] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Medians over all rounds; ratios are medians of each round's own."""
        return {
            "deploy": self._figures("deploy", "create"),
            "rollback": self._figures("rollback", "start"),
        }

    def _figures(self, what: str, floor: str) -> dict[str, Any]:
        pairs = [(getattr(each, what), getattr(each, floor)) for each in self.rounds]
        kinds = dict.fromkeys(kind for outcome, _ in pairs for kind in outcome.steps)
        return {
            "seconds": _median(outcome.seconds for outcome, _ in pairs),
            "to_traffic_seconds": _median(outcome.to_traffic for outcome, _ in pairs),
            "floor_seconds": _median(least for _, least in pairs),
            "ratio_to_floor": _median(outcome.seconds / least for outcome, least in pairs),
            "all_seconds": [round(outcome.seconds, 2) for outcome, _ in pairs],
            "steps": {
                kind: _median(outcome.steps.get(kind, 0.0) for outcome, _ in pairs)
                for kind in kinds
            },
        }


def run(name: str, host_counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure on fleets of each size. Every deploy brings an image that the registry has and the
    hosts have not; every rollback goes to the container that stands by."""
    found: dict[str, Any] = {}
    for count in host_counts:
        with stage.practice_fleet(name, count) as environment:
            versions = [f"0.{count}.{number}-bench" for number in range(rounds + 1)]
            stage.publish(environment, versions)
            stage.bring(name, versions[0])
            series = _Series()
            for before, version in zip(versions, versions[1:], strict=False):
                series.rounds.append(_measure(name, environment, before, version))
            found[str(count)] = series.figures()
    return {"rounds": rounds, "hosts": found, "peer_seconds": PEER}


def _measure(name: str, environment: Environment, before: str, version: str) -> _Round:
    deploy = stage.bring(name, version)
    create, start = _floors(environment, version)
    rollback = stage.go_back(name, before)
    stage.bring(name, version)
    return _Round(deploy, rollback, create, start)


def _floors(environment: Environment, version: str) -> tuple[float, float]:
    """On all hosts at once, the slowest: made and started, and stopped and started again."""
    secrets = load_secrets(environment)
    with open_session(environment, Events()) as session:
        release = find_candidate(session, secrets, version).release
        facts = session.facts(secrets)
        specs = {
            name: dataclasses.replace(
                containers.make_slot_container(
                    environment, "web", "blue", release, facts.hosts[name].secrets or ""
                ),
                name=f"amani-{environment.name}-floor",
                address="",
                ports={8000: ("0.0.0.0", FLOOR_PORT)},  # nosec B104 - a practice host's own
            )
            for name in session.hosts
        }
        with ThreadPoolExecutor(len(specs)) as pool:
            both = list(
                pool.map(lambda host: _floor(host, specs[host.name]), session.hosts.values())
            )
    return max(create for create, _ in both), max(start for _, start in both)


def _floor(host: Host, spec: ContainerSpec) -> tuple[float, float]:
    engine = host.engine
    engine.remove(spec.name)
    with _removed(host, spec.name):
        begun = time.monotonic()
        engine.create(spec)
        engine.start(spec.name)
        create = _first_answer(host) - begun
        engine.stop(spec.name, 10)
        begun = time.monotonic()
        engine.start(spec.name)
        return create, _first_answer(host) - begun


@contextlib.contextmanager
def _removed(host: Host, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        host.engine.remove(name)


def _first_answer(host: Host) -> float:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(host.address, FLOOR_PORT, timeout=1)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/api/v1/readiness")
            if connection.getresponse().status == 200:
                return time.monotonic()
        time.sleep(0.01)
    raise DeployError(f"{host.name}: the container of the floor was not ready in {PATIENCE:g} s")


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)
