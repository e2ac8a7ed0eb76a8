"""An operator of practice hosts: runs the deployer's commands, and reads the state of the hosts."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psycopg
import yaml

from deploy.environment.model import Environment, load_environment
from deploy.events import Events
from deploy.execute.plan import Plan
from deploy.images import build as images
from deploy.machine.checkout import ROOT, program
from deploy.observe import probe
from deploy.operations.candidates import find_candidate
from deploy.operations.host_session import open_session
from deploy.operations.status import find_drift
from deploy.planning.strategies import choose_strategy
from deploy.secrets import load_secrets
from deploy.state.facts import Facts
from deploy.state.release import BuildInfo
from workshop.fleet.fleet import Fleet

PATIENCE = 240.0
"""Seconds that a command may take on a loaded machine."""
JsonEvent = Mapping[str, Any]
SILENT = Events()
# Lists only the volumes that no container uses, and only the partial backups.
_LISTING = """
docker ps -a --format 'container {{.Names}}'
docker volume ls --filter dangling=true --format 'volume {{.Name}}'
find "$1" -mindepth 1 -path "$1/backups" -prune -o -printf 'file %f\\n'
[ ! -d "$1/backups" ] || find "$1/backups" -name '*.partial' -printf 'file %f\\n'
"""
_SQLITE_REVISION = (
    "import sqlite3; c = sqlite3.connect('/data/amani.sqlite3');"
    " print(c.execute('SELECT version_num FROM alembic_version').fetchone()[0])"
)


@dataclass(frozen=True)
class Outcome:
    """The result of a command: its exit status, its JSON events and its standard error."""

    status: int
    events: Sequence[JsonEvent]
    errors: str

    @property
    def plan(self) -> Mapping[str, Any]:
        event = next(event for event in self.events if event["kind"] == "plan")
        return dict(event["data"]["plan"])

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Host and kind of each step of the plan."""
        stages = self.plan["stages"]
        return [(s["host"], s["kind"]) for each in stages for lane in each["lanes"] for s in lane]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the finished steps in order; consecutive steps of one kind count once."""
        return [kind for kind, _ in itertools.groupby(kind for _, kind in self.done())]

    def done(self, kind: str = "step-finished") -> list[tuple[str, str]]:
        """Host and kind of the steps that have an event of `kind`."""
        return [(event["host"], event["step"]) for event in self.events if event["kind"] == kind]


def at(moment: str, step: str, host: str = "") -> Callable[[JsonEvent], bool]:
    """Match the event `moment` of a kind of step, on `host` or on any host."""
    return lambda event: (
        (event["kind"], event.get("step")) == (moment, step) and host in ("", event["host"])
    )


def finished(number: int) -> Callable[[JsonEvent], bool]:
    """Match the end of the step that is the `number`th to finish, counted from 1."""
    count = itertools.count(1)
    return lambda event: event["kind"] == "step-finished" and next(count) == number


def planned(event: JsonEvent) -> bool:
    """Match the event of the plan: the lock is held, and no step has started."""
    return event["kind"] == "plan"


def waits_for_migration(event: JsonEvent) -> bool:
    """Match the event of a wait for the migration of an earlier run."""
    return "waiting for the migration of an earlier run" in event.get("text", "")


class Command:
    """A running command of the deployer, in a process group of its own."""

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
        self._events: list[JsonEvent] = []

    def until(self, reached: Callable[[JsonEvent], bool]) -> JsonEvent | None:
        """The first event that `reached` matches; None if the command ends before it."""
        for line in self._process.stdout or ():
            self._events.append(json.loads(line))
            if reached(self._events[-1]):
                return self._events[-1]
        return None

    def suspend(self, reached: Callable[[JsonEvent], bool]) -> Self:
        """Read the events up to the first that `reached` matches, then stop all processes."""
        found = self.until(reached)
        assert found is not None, self.end().errors
        self.signal(signal.SIGSTOP)
        return self

    def resume(self) -> Outcome:
        """Continue a suspended command, and wait for its end."""
        self.signal(signal.SIGCONT)
        return self.end()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the command."""
        os.killpg(self._process.pid, number)

    def end(self) -> Outcome:
        """Wait for the end. Raises `TimeoutExpired` after `PATIENCE`."""
        try:
            output, errors = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise
        self._events += [json.loads(line) for line in output.splitlines() if line.endswith("}")]
        return Outcome(self._process.returncode, self._events, errors)


class Operator:
    """Operates the environment of a fleet; `folder` holds the environment that `change` writes."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.name = fleet.name
        self._folder = folder
        self._environ: dict[str, str] = {}

    def change(self, **changes: Any) -> None:
        """Use the fleet's environment with these keys changed."""
        content = yaml.safe_load(self.fleet.environment_file.read_text()) | changes
        (self._folder / f"{self.name}.yml").write_text(yaml.safe_dump(content))
        secrets = self._folder / self.fleet.secrets_file.name
        secrets.touch(mode=0o600)
        secrets.write_text(self.fleet.secrets_file.read_text())
        self._environ = {"AMANI_ENVIRONMENTS": str(self._folder)}

    def publish(self, *versions: str, source: Path = ROOT) -> None:
        """Build and push the service under each version; the first build fills the cache."""
        repository = f"{self.fleet.registry}/amani-backend"
        arguments = BuildInfo.of(ROOT).arguments
        for version in versions:
            reference = f"{repository}:{version}"
            images.build(source, arguments | {"BUILD_VERSION": version}, [reference], events=SILENT)
            images.push([reference], events=SILENT)

    def start(self, task: str, *arguments: str) -> Command:
        """Start a task on the environment."""
        return Command([task, f"--env={self.name}", *arguments], self._environ)

    def run(self, task: str, *arguments: str) -> Outcome:
        """Run a task on the environment to its end."""
        return self.start(task, *arguments).end()

    def kill(
        self, version: str, reached: Callable[[JsonEvent], bool], task: str = "deploy", *more: str
    ) -> str:
        """Deploy, and kill the deployer at the first event that `reached` matches; describe it."""
        command = self.start(task, f"--version={version}", *more)
        found = command.until(reached)
        command.signal(signal.SIGKILL)
        outcome = command.end()
        assert found is not None, outcome.errors
        return f"{found['kind']} {found.get('step')} on {found.get('host')}"

    def deploy(self, version: str) -> Outcome:
        """Deploy a version; fail unless the command succeeds."""
        outcome = self.run("deploy", f"--version={version}")
        assert outcome.status == 0, outcome.errors
        return outcome

    @cached_property
    def environment(self) -> Environment:
        """The environment as the deployer loads it."""
        return load_environment(
            self.name, folder=Path(self._environ.get("AMANI_ENVIRONMENTS", self.fleet.folder))
        )

    def observe(self, version: str) -> tuple[Facts, Plan]:
        """The facts of all hosts, and the plan for a deploy of a version."""
        secrets = load_secrets(self.environment)
        with open_session(self.environment, SILENT) as session:
            session.require_all()
            facts = session.facts(secrets)
            release = find_candidate(session, secrets, version).release
            return facts, choose_strategy(self.environment).plan(self.environment, release, facts)

    @property
    def revision(self) -> str:
        """The schema revision of the fleet's PostgreSQL."""
        with psycopg.connect(self.fleet.database_url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""

    def migrations(self) -> list[str]:
        """The names of the running migration containers on the first host."""
        argv = ["docker", "ps", "--filter=label=amani.one-off=migrate", "--format={{.Names}}"]
        return self.fleet.host(1).run(argv).split()

    def run_in_web(self, *argv: str) -> str:
        """The output of a command in a web container of the first host."""
        script = 'docker exec $(docker ps -qf label=amani.role=web | head -n 1) "$@"'
        return self.fleet.host(1).run(["sh", "-c", script, "in", *argv]).strip()

    @property
    def sqlite_revision(self) -> str:
        """The schema revision of the SQLite file in the service's volume."""
        return self.run_in_web("python", "-c", _SQLITE_REVISION)

    def use_sqlite(self) -> None:
        """Use an environment whose database is SQLite, in a volume of its host."""
        settings = {"ENVIRONMENT": "staging", "DATABASE_URL": "sqlite:////data/amani.sqlite3"}
        self.change(settings=settings, secrets=["SECRET_KEY"], volumes={"data": "/data"})

    def facts(self) -> Facts:
        with open_session(self.environment, SILENT) as session:
            session.require_all()
            return session.facts(load_secrets(self.environment))

    def versions(self, *names: str) -> dict[str, str]:
        """The version that each web host (or each named one) reports on its public route."""
        config, hosts = self.environment.smoke, self.environment.hosts_with("web")
        answers = {
            host.name: probe.ask(
                self.environment, host.name, config.version_path, timeout=10
            ).json()
            for host in hosts
            if not names or host.name in names
        }
        return {host: (body or {}).get(config.version_field, "") for host, body in answers.items()}

    def addresses(self, *but: str) -> dict[str, str]:
        """The address of each host, except those in `but`."""
        hosts = self.environment.hosts
        return {host.name: host.address for host in hosts if host.name not in but}

    def containers(self) -> dict[str, str]:
        """The start time of each container on each host, as the engines report it."""
        script = (
            "docker ps -aq --no-trunc | xargs -r docker inspect -f '{{.Name}} {{.State.StartedAt}}'"
        )
        return {
            f"{host.name}{name}": started
            for host in self.fleet.hosts
            for name, started in map(str.split, host.run(["sh", "-c", script]).splitlines())
        }

    def files(self) -> dict[str, list[str]]:
        """Path, size and modification time of each of the deployer's files on each host."""
        argv = ["find", self.environment.folder, "-type", "f", "-printf", "%p %s %T@\\n"]
        return {host.name: sorted(host.run(argv).splitlines()) for host in self.fleet.hosts}

    def leftovers(self) -> list[str]:
        """The containers, volumes and files on the hosts that a complete run does not leave."""
        own = {"haproxy.cfg", "maintenance.acl", "journal.jsonl", "secrets.json", "proxy"}
        names = {config.name for config in self.environment.hosts}
        argv = ["sh", "-c", _LISTING, "list", self.environment.folder]
        found = [
            (host.name, *line.split())
            for host in self.fleet.hosts
            if host.name in names
            for line in host.run(argv).splitlines()
        ]
        return [
            f"{host}: {kind} {name}"
            for host, kind, name in found
            if name not in own and not re.search(r"-(proxy|(web|worker)-(blue|green))$", name)
        ]

    def find_deviations(self, version: str) -> list[str]:
        """Describe each deviation from a complete deploy of a version, leftovers included."""
        facts, plan = self.observe(version)
        steps = [f"{step.host}: {step.describe()}" for step in plan.steps()]
        wrong = {h: v for h, v in self.versions().items() if v != version}
        strays = [
            f"{host.name}: {found.name} of {found.version} is {found.state}"
            for host in facts.hosts.values()
            for found in host.containers
            if found.slot and found.running and found.version != version
            # A web container of an earlier release may be the standby; `find_drift` checks it.
            if found.role != "web" or host.proxy.servers[found.slot].state == "ready"
        ]
        record = [r for r in facts.history if r.live][-1]
        unrecorded = [] if record.version == version else [f"recorded is {record.version}"]
        answers = [f"{host} answers as {found}" for host, found in wrong.items()]
        return [*steps, *find_drift(facts), *answers, *strays, *unrecorded, *self.leftovers()]
