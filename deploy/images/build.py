"""The build of this checkout's image with BuildKit, and its push."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.database.checkout import read_checkout
from deploy.errors import DeployError, EngineError, UsageError
from deploy.events import Events
from deploy.images import bases, pip_configuration
from deploy.images.registry import Credentials, split_repository

SOCKET = "unix:///var/run/docker.sock"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class BuildFailed(DeployError):
    """The image could not be built. The message contains the last lines of the output."""


@dataclass(frozen=True)
class BuiltImage:
    """An image in this machine's engine. `references` are its names there."""

    id: str
    references: tuple[str, ...]


def build(
    checkout: Path,
    arguments: Mapping[str, str],
    references: Sequence[str],
    *,
    platform: str = "",
    events: Events,
) -> BuiltImage:
    """Build the image of `checkout` and name it by `references` (repository:tag).

    `arguments` are the build's arguments; `SCHEMA_HEAD` and `SCHEMA_REVISIONS` are added from the
    checkout's migrations. pip's configuration and CA bundle are passed as secrets, in no layer and
    no argument. Every line of the build's output becomes a `step-progress` event. Raises
    `BuildFailed`, `UsageError` if no client supports BuildKit, `EngineError` if no engine
    answers.
    """
    dockerfile = checkout / "Dockerfile"
    if not dockerfile.is_file():
        raise UsageError(f"there is no {dockerfile}")
    names = find_base_names(dockerfile.read_text())
    bases.ensure_bases(names, announce=lambda text: events.emit("note", text))
    history = read_checkout(checkout / "migrations" / "versions")
    command = [*find_client(), *_cache()]
    with tempfile.TemporaryDirectory(prefix="build-") as folder:  # mode 0700
        identity = Path(folder, "image-id")
        argv = [*command, "--progress=plain", f"--iidfile={identity}"]
        argv += [f"--platform={platform}"] if platform else []
        for name, value in {**arguments, **history.arguments}.items():
            argv += ["--build-arg", f"{name}={value}"]
        # By name only: the value comes from the environment, and BuildKit stores none of these.
        argv += [f"--build-arg={name}" for proxy in PROXIES for name in _set_variables(proxy)]
        argv += _secrets(Path(folder))
        for reference in references:
            argv += ["--tag", reference]
        _follow([*argv, str(checkout)], events)
        return BuiltImage(identity.read_text().strip(), tuple(references))


def push(
    references: Sequence[str],
    credentials: Mapping[str, Credentials] | None = None,
    *,
    events: Events,
) -> dict[str, str]:
    """Push each reference (repository:tag). Returns the manifest's digest by repository.

    `credentials` are by repository; without them, the engine's client configuration (`docker
    login`) is used. They are passed in a header to the engine, never in an argument. Raises
    `EngineError` with the registry's message if it refuses.
    """
    import docker
    import docker.errors
    import requests

    digests: dict[str, str] = {}
    try:
        engine = docker.from_env(timeout=300).api
        for reference in references:
            repository, _, tag = reference.rpartition(":")
            login = (credentials or {}).get(repository)
            auth = {"username": login[0], "password": login[1]} if login else None
            lines = engine.push(repository, tag=tag, stream=True, decode=True, auth_config=auth)
            digests[repository] = _read_push(lines, reference, events)
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError(f"{reference} could not be pushed: {error}") from None
    return digests


def find_base_names(dockerfile: str) -> list[str]:
    """The known base images that a Dockerfile builds on."""
    arguments = dict(re.findall(r"^ARG\s+(\w+)=(\S+)", dockerfile, re.MULTILINE))
    froms = [
        re.sub(r"\$\{?(\w+)\}?", lambda found: arguments.get(found[1], ""), name)
        for name in re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)", dockerfile, re.MULTILINE)
    ]
    return bases.select(froms)


def find_client() -> list[str]:
    """The start of a command line that builds with BuildKit.

    A `docker` with buildx is preferred; versions before 23 contain BuildKit. PATH may have several,
    and the first one need not belong to the engine.
    """
    older: list[str] = []
    for docker in _programs("docker"):
        if _asked(docker, "buildx", "version") is not None:
            # Only a separate builder can write a cache into a folder.
            builder = [] if os.environ.get("AMANI_BUILD_CACHE") else ["--builder=default"]
            return [docker, "buildx", "build", *builder, "--load"]
        version = _asked(docker, "--version") or ""
        found = re.search(r"version (\d+)", version)
        if found and int(found[1]) < 23:
            older.append(docker)
    if older:
        return [older[0], "build"]
    hint = "Run: sudo apt-get install docker-cli docker-buildx (Debian 12: docker.io has both)"
    raise UsageError("no docker client on PATH can build with BuildKit", hint=hint)


def _cache() -> list[str]:
    """Options for a cache folder that outlives the builder (`AMANI_BUILD_CACHE`)."""
    if not (folder := os.environ.get("AMANI_BUILD_CACHE")):
        return []
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    return [f"--cache-from=type=local,src={place}", f"--cache-to=type=local,dest={place},mode=max"]


def _secrets(folder: Path) -> list[str]:
    configuration = pip_configuration.read_configuration(os.environ)
    written = folder / "pip.conf"
    written.touch(mode=0o600)
    written.write_text(configuration.text)
    argv = [f"--secret=id=pip_conf,src={written}"]
    if configuration.bundle:
        argv.append(f"--secret=id=ca_bundle,src={configuration.bundle.resolve()}")
    if configuration.loopback:  # an index or a proxy that only this machine itself can reach
        argv.append("--network=host")
    return argv


def _follow(argv: Sequence[str], events: Events) -> None:
    # The engine that docker-py uses, whatever the client's context is.
    environment = dict(os.environ, DOCKER_BUILDKIT="1")
    environment.setdefault("DOCKER_HOST", SOCKET)
    tail: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                if text := line.rstrip():
                    tail.append(text)
                    events.emit("step-progress", text, step="build")
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise BuildFailed("the image could not be built:\n" + "\n".join(tail))


def _read_push(lines: Iterator[Mapping[str, object]], reference: str, events: Events) -> str:
    digest = ""
    for line in lines:
        if "error" in line:
            hint = ""
            if "HTTP response to HTTPS client" in str(line["error"]):
                host = split_repository(reference.rpartition(":")[0])[0]
                hint = f'The engine takes {host} as plain HTTP with "insecure-registries" in'
                hint += " /etc/docker/daemon.json."
            raise EngineError(f"{reference} could not be pushed: {line['error']}", hint=hint)
        aux = line.get("aux")
        if isinstance(aux, dict) and "Digest" in aux:
            digest = str(aux["Digest"])
        elif status := line.get("status"):
            layer = f"{line['id']}: " if "id" in line else ""
            if "progress" not in line:
                events.emit("step-progress", f"{layer}{status}", step="push")
    if not digest:
        raise EngineError(f"{reference}: the registry returned no digest")
    return digest


def _programs(name: str) -> Iterator[str]:
    for folder in dict.fromkeys(os.get_exec_path()):
        path = Path(folder, name)
        if path.is_file() and os.access(path, os.X_OK):
            yield str(path)


def _asked(*argv: str) -> str | None:
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def _set_variables(name: str) -> list[str]:
    return [form for form in (name, name.upper()) if os.environ.get(form)]
