"""Duration of a deploy and of a rollback, with the start of a container as the baseline."""

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
from workshop.bench import practice_releases

FLOOR_PORT = 18000
PATIENCE = 60.0
PEER = {"deploy": 5.2, "rollback": 2.2}
"""Seconds that Kamal 2.7 took on such a host, under load."""


@dataclass
class _Round:
    """The measurements of one round: a deploy, the baselines, and the rollback after them."""

    deploy: practice_releases.CommandOutcome
    rollback: practice_releases.CommandOutcome
    create: float
    """Seconds from the creation of a container of the release to its first healthy answer."""
    start: float
    """Seconds from the start of a stopped container to its first healthy answer."""


@dataclass
class _Series:
    rounds: list[_Round] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Medians over all rounds; a ratio is the median of the rounds' ratios."""
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
    """Measure on a fleet of each size; returns the figures as JSON values.

    The image of each deploy is in the registry and not on the hosts. Each rollback goes to the
    standby.
    """
    found: dict[str, Any] = {}
    for count in host_counts:
        with practice_releases.practice_fleet(name, count) as environment:
            versions = [f"0.{count}.{number}-bench" for number in range(rounds + 1)]
            practice_releases.publish(environment, versions)
            practice_releases.deploy_version(name, versions[0])
            series = _Series()
            for before, version in zip(versions, versions[1:], strict=False):
                series.rounds.append(_measure(name, environment, before, version))
            found[str(count)] = series.figures()
    return {"rounds": rounds, "hosts": found, "peer_seconds": PEER}


def _measure(name: str, environment: Environment, before: str, version: str) -> _Round:
    deploy = practice_releases.deploy_version(name, version)
    create, start = _floors(environment, version)
    rollback = practice_releases.roll_back(name, before)
    practice_releases.deploy_version(name, version)
    return _Round(deploy, rollback, create, start)


def _floors(environment: Environment, version: str) -> tuple[float, float]:
    """Seconds of the slowest host to create and start a container, and to start it again."""
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
    raise DeployError(
        f"{host.name}: the container of the baseline was not ready after {PATIENCE:g} s"
    )


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)
