"""The container on the database's host in which backups are made and restored."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.backups import catalogue
from deploy.errors import DeployError, EngineError, GateRefused, Locked, UsageError
from deploy.hosts.engine import ContainerSpec, Mount
from deploy.state import containers

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.hosts.host import Host
    from deploy.secrets import Secrets

BASE = "amani-backup:17-trixie"
PURPOSE = "backup"
_PROGRAM = Path(__file__).with_name("program")
_ARGV = ("python3", "/tool.pyz")
_SHORTEST, _LONGEST = 0.02, 0.2
"""Seconds between two questions: many jobs are done at once, and some take an hour."""
_KINDS: dict[str, type[DeployError]] = {
    "refused": GateRefused,
    "locked": Locked,
    "usage": UsageError,
}


class Tool:
    """The program in its container: jobs are asked for, and asked after until they end."""

    def __init__(
        self, host: Host, container: str, url: str, events: Events, check: Callable[[], None]
    ) -> None:
        self._host, self.container = host, container
        self._url, self._events, self._check = url, events, check
        self._numbers = itertools.count(1)

    def run(self, job: str, *, seconds: float, **request: Any) -> Any:
        """What a job results in.

        Raises `GateRefused`, `Locked`, `UsageError` or `DeployError`, as the job failed; what it
        had begun is taken back then.
        """
        number = next(self._numbers)
        try:
            said = self._ask({"url": self._url, **request, "job": job, "number": number})
            deadline, pause = time.monotonic() + seconds, _SHORTEST
            while said["state"] == "running":
                if time.monotonic() > deadline:
                    raise self._failure(f"not done within {seconds:g} s", "raise `backups.timeout`")
                self._check()
                self._tell(said)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                said = self._ask({"job": "poll", "number": number})
        except BaseException:
            # So that it takes back what it has begun, before its container is removed.
            with contextlib.suppress(DeployError):
                self._ask({"job": "stop", "number": number})
            raise
        if said["state"] == "done":
            return said["result"]
        if said["state"] == "unknown":
            raise self._failure(f"the program that was to {job} was ended in the middle")
        raise self._failure(said["text"], said["hint"], said["kind"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        question = json.dumps(request).encode() + b"\n"
        answer = self._host.engine.ask(self.container, _ARGV, question, end=b"\n", timeout=60)
        try:
            return dict(json.loads(answer))
        except ValueError:  # the engine's own words, where the container has just ended
            raise self._failure(f"the backup container says: {answer.strip()[:300]}") from None

    def _failure(self, text: str, hint: str = "", kind: str = "failed") -> DeployError:
        name = self._host.name
        return _KINDS.get(kind, DeployError)(f"{name}: {text}", hint=hint, host=name)

    def _tell(self, said: dict[str, Any]) -> None:
        rate = said["bytes"] / max(said["seconds"], 0.001)
        text = f"{said['phase']}: {said['bytes'] / 1e6:,.1f} MB, {rate / 1e6:,.1f} MB/s"
        if said["total"] > said["bytes"] > 0:
            text += f", about {(said['total'] - said['bytes']) / rate:,.0f} s left"
        data = {"phase": said["phase"], "bytes": said["bytes"], "rate": round(rate)}
        self._events.emit("step-progress", text, host=self._host.name, step="backup", data=data)


@contextlib.contextmanager
def open_tool(
    host: Host,
    environment: Environment,
    secrets: Secrets,
    events: Events,
    *,
    run_id: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Tool]:
    """The tool, ready; its container and whatever it still does end with the block.

    Left-overs of a run that was killed are ended first: only under the environment's lock.
    """
    engine = host.engine
    labels = {containers.ENVIRONMENT: environment.name, containers.ONE_OFF: PURPOSE}
    for left in engine.containers(labels):
        engine.remove(left["Id"])
    image = ensure_image(host, environment, secrets, events)
    place = catalogue.folder(environment)
    host.run(("mkdir", "-p", "-m", "700", place))
    engine.ensure_network(
        containers.network_name(environment),
        environment.network.subnet,
        {containers.ENVIRONMENT: environment.name},
    )
    volumes = [
        Mount(containers.volume_name(environment, name), target, read_only=False)
        for name, target in sorted(environment.volumes.items())
    ]
    program = _deliver(host, place)
    spec = ContainerSpec(
        name=f"amani-{environment.name}-{PURPOSE}-{run_id}",
        image=image,
        command=("tail", "-f", "/dev/null"),
        labels={**labels, containers.ROLE: "one-off"},
        mounts=(Mount(place, "/backups", False), Mount(program, "/tool.pyz"), *volumes),
        tmpfs={"/tmp": "rw,nosuid,nodev,noexec,size=64m,mode=1777"},  # nosec B108
        network=containers.network_name(environment),
        # Root, of whom little is left: archives are given to the folder's owner, and a copy of
        # SQLite's file must be able to open what belongs to the service.
        user="0",
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
        restart="no",
        stop_timeout=0,
        healthcheck=False,
    )
    container = engine.create(spec)
    try:
        engine.start(container)
        yield Tool(host, container, database_url(environment, secrets), events, check)
    finally:
        engine.remove(container)


def database_url(environment: Environment, secrets: Secrets) -> str:
    """Where the service's database is; it may hold a password."""
    secret = secrets.values.get(environment.backups.secret)
    return secret.reveal() if secret else f"sqlite:///{environment.backups.sqlite}"


def ensure_image(host: Host, environment: Environment, secrets: Secrets, events: Events) -> str:
    """See to it that the host has the backup image; returns its name there.

    Where hosts pull from a registry it is kept there, beside the release's repository; the first
    who needs it makes it of Debian packages.
    """
    from deploy.images import bases

    if not environment.image.registered:
        bases.ensure_bases([BASE], announce=lambda text: events.emit("note", text))
        return BASE
    base = next(base for base in bases.bases() if base.name == BASE)
    repository = f"{environment.image.repository}-backup"
    tag = f"17-{base.recipe}"
    name = f"{repository}:{tag}"
    if host.engine.image(name) is None:
        login = secrets.registry(environment.image.repository)
        timeout = environment.timeouts.pull
        try:
            host.engine.pull(repository, tag, credentials=login, timeout=timeout)
        except EngineError:
            _push(name, login, events)
            host.engine.pull(repository, tag, credentials=login, timeout=timeout)
    return name


def _push(name: str, login: tuple[str, str] | None, events: Events) -> None:
    import docker

    from deploy.images import bases, build

    bases.ensure_bases([BASE], announce=lambda text: events.emit("note", text))
    repository, _, tag = name.rpartition(":")
    with contextlib.closing(docker.from_env()) as engine:
        engine.api.tag(BASE, repository, tag)
    build.push([name], {repository: login} if login else None, events=events)


def _deliver(host: Host, place: str) -> str:
    """Put the program on the host; its name tells its content, so none is ever overwritten."""
    data = archive_program()
    path = f"{place}/.program-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if host.run(("test", "-f", path), check=False).status:
        host.run(("sh", "-c", 'rm -f -- "$1"/.program-*', "tidy", place))
        host.write_file(path, data, mode=0o644)
    return path


def archive_program() -> bytes:
    """The program as a file that Python runs; equal sources give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for package in ("deploy", "deploy/backups"):
            file.writestr(zipfile.ZipInfo(f"{package}/__init__.py"), "")
        for path in sorted(_PROGRAM.glob("*.py")):
            main = path.name == "__main__.py"
            name = path.name if main else f"deploy/backups/program/{path.name}"
            file.writestr(zipfile.ZipInfo(name), path.read_bytes())
    return buffer.getvalue()
