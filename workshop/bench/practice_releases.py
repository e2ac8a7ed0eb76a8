"""Practice hosts for benchmarks, releases in their registry, and commands that deploy them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess  # nosec B404 - argument lists of our own making only
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.environment.model import Environment, load_environment
from deploy.errors import DeployError
from deploy.events import Events
from deploy.machine.checkout import ROOT
from deploy.secrets import load_secrets
from deploy.state.release import BuildInfo, Version
from workshop.fleet.fleet import Fleet

PATIENCE = 600.0
"""Seconds that one command may take."""


@dataclass(frozen=True)
class CommandOutcome:
    """A finished command: its start (seconds since the epoch), duration in seconds, and events."""

    started: float
    seconds: float
    events: tuple[Mapping[str, Any], ...]

    @property
    def to_traffic(self) -> float:
        """Seconds from the command's start until the traffic of the last host is shifted."""
        return max(
            (
                event["at"] - self.started
                for event in self.events
                if event["kind"] == "step-finished" and event.get("step") == "shift"
            ),
            default=0.0,
        )

    @property
    def steps(self) -> dict[str, float]:
        """Seconds by kind of step; the longest of the steps on several hosts."""
        longest: dict[str, float] = {}
        for event in self.events:
            if event["kind"] == "step-finished":
                step, seconds = event["step"], event["data"]["seconds"]
                longest[step] = max(longest.get(step, 0.0), seconds)
        return longest


@contextlib.contextmanager
def practice_fleet(name: str, hosts: int, **backups: int) -> Iterator[Environment]:
    """A fleet of web hosts whose service honours `delay_ms`; it stays up afterwards.

    `backups` are settings of the environment's `backups` section.
    """
    with Fleet(name, announce=_tell) as fleet:
        fleet.up(hosts, web=range(1, hosts + 1), workers=())
        _adjust(fleet.environment_file, backups)
    yield load_environment(name)


def publish(wanted: Environment, versions: Sequence[str], source: Path = ROOT) -> None:
    """Build `source` once for each version and push the images to the environment's registry."""
    from deploy.images import build

    info = BuildInfo.of(ROOT)
    repository = wanted.image.repository
    events = Events()
    for version in versions:
        _tell(f"building {version}")
        named = dataclasses.replace(info, version=Version(version))
        reference = f"{repository}:{version}"
        build.build(
            source, named.arguments, [reference], platform=wanted.image.platform, events=events
        )
        login = load_secrets(wanted).registry(repository)
        build.push([reference], {repository: login} if login else {}, events=events)


def deploy_version(name: str, version: str) -> CommandOutcome:
    """Run `invoke deploy` for a version in the registry. Raises `DeployError` if it fails."""
    return _invoke("deploy", f"--env={name}", f"--version={version}", "--json")


def roll_back(name: str, version: str) -> CommandOutcome:
    """Run `invoke rollback` to a version that was live. Raises `DeployError` if it fails."""
    return _invoke("rollback", f"--env={name}", f"--version={version}", "--auto-confirm", "--json")


def _invoke(*words: str) -> CommandOutcome:
    started = time.time()
    clock = time.monotonic()
    done = subprocess.run(  # nosec B603
        [str(Path(sys.executable).with_name("invoke")), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    seconds = time.monotonic() - clock
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        raise DeployError(
            f"invoke {' '.join(words)} ended with {done.returncode}:\n"
            f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return CommandOutcome(started, seconds, tuple(lines))


def _adjust(path: Path, backups: Mapping[str, int]) -> None:
    """Let the service honour `delay_ms` and use all processors. `fleet.up` overwrites the file."""
    import yaml

    content = yaml.safe_load(path.read_text())
    content["settings"]["PRACTICE"] = "true"
    content["roles"]["web"]["resources"]["cpus"] = 0.0
    content["backups"] = {**content.get("backups", {}), **backups}
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
