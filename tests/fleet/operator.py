"""An operator at practice hosts: real releases in the fleet's registry, the deployer's commands as
typed, and a look at what they left on the hosts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from deploy import environment as environments
from deploy import probe
from deploy.checkout import ROOT, program
from deploy.events import Events
from deploy.facts import Facts
from deploy.fleet.fleet import Fleet
from deploy.images import build as images
from deploy.operations.session import open_session
from deploy.operations.source import find
from deploy.operations.status import drift
from deploy.plan import Plan
from deploy.release import BuildInfo
from deploy.secrets import load_secrets
from deploy.strategies import blue_green

PATIENCE = 240.0
"""Seconds that a command may take on a busy machine."""
Said = Mapping[str, Any]
SILENT = Events()


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, its JSON lines, and what it wrote for people."""

    status: int
    events: Sequence[Said]
    errors: str

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan that it made."""
        said = next(said for said in self.events if said["kind"] == "plan")
        return dict(said["data"]["plan"])

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Host and kind of the plan's steps."""
        stages = self.plan["stages"]
        return [(s["host"], s["kind"]) for each in stages for lane in each["lanes"] for s in lane]

    def done(self, kind: str = "step-finished") -> list[tuple[str, str]]:
        """Host and kind of the steps that an event of `kind` tells of."""
        return [(said["host"], said["step"]) for said in self.events if said["kind"] == kind]


class Command:
    """A command of the deployer under way, in a process group of its own."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [program("invoke"), *arguments, "--json"],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._said: list[Said] = []

    def until(self, reached: Callable[[Said], bool]) -> Said | None:
        """Read on to the event that makes `reached` true; None where the command ended before."""
        for line in self._process.stdout or ():
            self._said.append(json.loads(line))
            if reached(self._said[-1]):
                return self._said[-1]
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the command."""
        os.killpg(self._process.pid, number)

    def end(self) -> Outcome:
        """Wait for the end."""
        try:
            output, errors = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise
        self._said += [json.loads(line) for line in output.splitlines() if line.endswith("}")]
        return Outcome(self._process.returncode, self._said, errors)


class Operator:
    """Works on one fleet's environment; `folder` is where an environment that differs from the
    fleet's own is written."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.name = fleet.name
        self._folder = folder
        self._environ: dict[str, str] = {}

    def change(self, **changes: Any) -> None:
        """Work with an environment that differs from the fleet's own in these keys."""
        content = yaml.safe_load(self.fleet.environment_file.read_text()) | changes
        (self._folder / f"{self.name}.yml").write_text(yaml.safe_dump(content))
        secrets = self._folder / self.fleet.secrets_file.name
        secrets.touch(mode=0o600)
        secrets.write_text(self.fleet.secrets_file.read_text())
        self._environ = {"AMANI_ENVIRONMENTS": str(self._folder)}

    def publish(self, *versions: str) -> None:
        """Build the service under these versions and push them; after the first it is cached."""
        repository = f"{self.fleet.registry}/amani-backend"
        arguments = BuildInfo.of(ROOT).arguments
        for version in versions:
            reference = f"{repository}:{version}"
            images.build(ROOT, arguments | {"BUILD_VERSION": version}, [reference], events=SILENT)
            images.push([reference], events=SILENT)

    def start(self, task: str, *arguments: str) -> Command:
        """Start a task on the environment."""
        return Command([task, f"--env={self.name}", *arguments], self._environ)

    def run(self, task: str, *arguments: str) -> Outcome:
        """Run a task on the environment to its end."""
        return self.start(task, *arguments).end()

    def deploy(self, version: str) -> Outcome:
        """Bring a version and see it succeed."""
        outcome = self.run("deploy", f"--version={version}")
        assert outcome.status == 0, outcome.errors
        return outcome

    @cached_property
    def environment(self) -> environments.Environment:
        """The environment as the deployer reads it."""
        return environments.load(
            self.name, folder=Path(self._environ.get("AMANI_ENVIRONMENTS", self.fleet.folder))
        )

    def facts(self) -> Facts:
        """What the deployer sees on all hosts."""
        with open_session(self.environment, SILENT) as session:
            session.require_all()
            return session.facts(load_secrets(self.environment))

    def versions(self) -> dict[str, str]:
        """The version that each web host names on its public route."""
        config, hosts = self.environment.smoke, self.environment.hosts_with("web")
        answers = {
            host.name: probe.ask(
                self.environment, host.name, config.version_path, timeout=10
            ).json()
            for host in hosts
        }
        return {host: (said or {}).get(config.version_field, "") for host, said in answers.items()}

    def containers(self) -> dict[str, str]:
        """When each container on each host was started, as the engines tell it."""
        script = (
            "docker ps -aq --no-trunc | xargs -r docker inspect -f '{{.Name}} {{.State.StartedAt}}'"
        )
        return {
            f"{host.name}{name}": started
            for host in self.fleet.hosts
            for name, started in map(str.split, host.run(["sh", "-c", script]).splitlines())
        }

    def files(self) -> dict[str, list[str]]:
        """Path, size and time of change of every file that the deployer keeps on each host."""
        argv = ["find", self.environment.folder, "-type", "f", "-printf", "%p %s %T@\\n"]
        return {host.name: sorted(host.run(argv).splitlines()) for host in self.fleet.hosts}

    def plan(self, version: str) -> Plan:
        """What the deployer would do now to bring a version."""
        secrets = load_secrets(self.environment)
        with open_session(self.environment, SILENT) as session:
            session.require_all()
            release = find(session, secrets, version).release
            return blue_green.plan(self.environment, release, session.facts(secrets))

    def leftovers(self) -> list[str]:
        """What a run that was cut short left on the hosts besides what belongs there."""
        own = {"haproxy.cfg", "maintenance.acl", "journal.jsonl", "secrets.json", "proxy"}
        lists = {
            "container": ["docker", "ps", "-a", "--format", "{{.Names}}"],
            "file": ["find", self.environment.folder, "-mindepth", "1", "-printf", "%f\\n"],
        }
        return [
            f"{host.name}: {kind} {name}"
            for host in self.fleet.hosts
            if host.name in {config.name for config in self.environment.hosts}
            for kind, argv in lists.items()
            for name in host.run(argv).split()
            if name not in own and not re.search(r"-(proxy|(web|worker)-(blue|green))$", name)
        ]

    def unsettled(self, version: str) -> list[str]:
        """In words, all that keeps the environment from being wholly on a version, and tidy."""
        plan, facts = self.plan(version), self.facts()
        steps = [f"{step.host}: {step.describe()}" for step in plan.steps()]
        wrong = {h: v for h, v in self.versions().items() if v != version}
        strays = [
            f"{host.name}: {found.name} of {found.version} is {found.state}"
            for host in facts.hosts.values()
            for found in host.containers
            if found.slot and found.running and found.version != version
        ]
        record = [r for r in facts.history if r.live][-1]
        unrecorded = [] if record.version == version else [f"recorded is {record.version}"]
        answers = [f"{host} answers as {found}" for host, found in wrong.items()]
        return [*steps, *drift(facts), *answers, *strays, *unrecorded, *self.leftovers()]
