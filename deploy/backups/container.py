"""The container on the database's host that makes and restores backups."""

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
"""Seconds between two polls; the pause doubles, since jobs take from milliseconds to hours."""
_KINDS: dict[str, type[DeployError]] = {
    "refused": GateRefused,
    "locked": Locked,
    "usage": UsageError,
}


class BackupContainer:
    """The program in the container. It runs one job at a time, which is polled until it ends."""

    def __init__(
        self, host: Host, container: str, url: str, events: Events, check: Callable[[], None]
    ) -> None:
        self._host, self.id = host, container
        self._url, self._events, self._check = url, events, check
        self._numbers = itertools.count(1)

    def run(self, job: str, *, seconds: float, **request: Any) -> Any:
        """Run a job and return its result.

        Raises `GateRefused`, `Locked`, `UsageError` or `DeployError`, depending on the
        failure. The job removes its partial result then.
        """
        number = next(self._numbers)
        try:
            answer = self._send({"url": self._url, **request, "job": job, "number": number})
            deadline, pause = time.monotonic() + seconds, _SHORTEST
            while answer["state"] == "running":
                if time.monotonic() > deadline:
                    raise self._failure(
                        f"the job `{job}` did not end within {seconds:g} s",
                        "raise `backups.timeout`",
                    )
                self._check()
                self._report(answer)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                answer = self._send({"job": "poll", "number": number})
        except BaseException:
            # The job removes its partial result before the container is removed.
            with contextlib.suppress(DeployError):
                self._send({"job": "stop", "number": number})
            raise
        if answer["state"] == "done":
            return answer["result"]
        if answer["state"] == "unknown":
            raise self._failure(
                f"the backup program ended during the job `{job}`", "run this command again"
            )
        raise self._failure(answer["text"], answer["hint"], answer["kind"])

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        line = json.dumps(request).encode() + b"\n"
        answer = self._host.engine.ask(self.id, _ARGV, line, end=b"\n", timeout=60)
        try:
            return dict(json.loads(answer))
        except ValueError:  # the engine's message, if the container has just ended
            text = f"the backup container returned no JSON: {answer.strip()[:300]}"
            raise self._failure(text, "run this command again") from None

    def _failure(self, text: str, hint: str = "", kind: str = "failed") -> DeployError:
        name = self._host.name
        return _KINDS.get(kind, DeployError)(f"{name}: {text}", hint=hint, host=name)

    def _report(self, answer: dict[str, Any]) -> None:
        rate = answer["bytes"] / max(answer["seconds"], 0.001)
        text = f"{answer['phase']}: {answer['bytes'] / 1e6:,.1f} MB, {rate / 1e6:,.1f} MB/s"
        if answer["total"] > answer["bytes"] > 0:
            text += f", about {(answer['total'] - answer['bytes']) / rate:,.0f} s left"
        data = {"phase": answer["phase"], "bytes": answer["bytes"], "rate": round(rate)}
        self._events.emit("step-progress", text, host=self._host.name, step="backup", data=data)


@contextlib.contextmanager
def open_container(
    host: Host,
    environment: Environment,
    secrets: Secrets,
    events: Events,
    *,
    run_id: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[BackupContainer]:
    """Start the backup container; it and its job end with the block.

    Containers that a killed run left are removed first. Needs the environment's lock.
    """
    engine = host.engine
    labels = {containers.ENVIRONMENT: environment.name, containers.ONE_OFF: PURPOSE}
    for left in engine.containers(labels):
        engine.remove(left["Id"])
    image = ensure_image(host, environment, secrets, events)
    folder = catalogue.folder(environment)
    host.run(("mkdir", "-p", "-m", "700", folder))
    engine.ensure_network(
        containers.network_name(environment),
        environment.network.subnet,
        {containers.ENVIRONMENT: environment.name},
    )
    volumes = [
        Mount(containers.volume_name(environment, name), target, read_only=False)
        for name, target in sorted(environment.volumes.items())
    ]
    program = _deliver(host, folder)
    spec = ContainerSpec(
        name=f"amani-{environment.name}-{PURPOSE}-{run_id}",
        image=image,
        command=("tail", "-f", "/dev/null"),
        labels={**labels, containers.ROLE: "one-off"},
        mounts=(Mount(folder, "/backups", False), Mount(program, "/tool.pyz"), *volumes),
        tmpfs={"/tmp": "rw,nosuid,nodev,noexec,size=64m,mode=1777"},  # nosec B108
        network=containers.network_name(environment),
        # Root with few capabilities: archives get the owner of the folder, and SQLite's file
        # belongs to the service's user.
        user="0",
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
        restart="no",
        stop_timeout=0,
        healthcheck=False,
    )
    container = engine.create(spec)
    try:
        engine.start(container)
        yield BackupContainer(host, container, database_url(environment, secrets), events, check)
    finally:
        engine.remove(container)


def database_url(environment: Environment, secrets: Secrets) -> str:
    """The URL of the service's database; it may contain a password."""
    secret = secrets.values.get(environment.backups.secret)
    return secret.reveal() if secret else f"sqlite:///{environment.backups.sqlite}"


def ensure_image(host: Host, environment: Environment, secrets: Secrets, events: Events) -> str:
    """Bring the backup image to the host, and return its name there.

    If hosts pull from a registry, the image has a repository beside the release's. It is built from
    Debian packages and pushed when it is first needed.
    """
    from deploy.images import bases

    if not environment.image.registered:
        bases.ensure_bases([BASE], announce=lambda text: events.emit("note", text))
        return BASE
    base = next(base for base in bases.list_bases() if base.name == BASE)
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


def _deliver(host: Host, folder: str) -> str:
    """Write the program to the host. Its hash is in its name, so it is never overwritten."""
    data = archive_program()
    path = f"{folder}/.program-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if host.run(("test", "-f", path), check=False).status:
        host.run(("sh", "-c", 'rm -f -- "$1"/.program-*', "tidy", folder))
        host.write_file(path, data, mode=0o644)
    return path


def archive_program() -> bytes:
    """The program as a zip file that Python runs; equal sources give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for package in ("deploy", "deploy/backups"):
            file.writestr(zipfile.ZipInfo(f"{package}/__init__.py"), "")
        for path in sorted(_PROGRAM.glob("*.py")):
            main = path.name == "__main__.py"
            name = path.name if main else f"deploy/backups/program/{path.name}"
            file.writestr(zipfile.ZipInfo(name), path.read_bytes())
    return buffer.getvalue()
