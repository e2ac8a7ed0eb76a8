"""The Docker Engine of this machine: found, or installed and started if that is allowed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from deploy.errors import EngineError, UsageError
from deploy.machine.packages import Announce, add_root, ensure_packages, find_known_packages

RUN = Path("/var/run")
LOG = Path("/var/log/dockerd.log")
START_DEADLINE = 60.0
"""Seconds for the start of an engine. On a slow disk the start takes ten."""
# Debian 13 and Ubuntu have separate packages for the client and for BuildKit's front end.
PACKAGES = ("docker.io", "docker-cli", "docker-buildx")


def ensure_engine(announce: Announce = print) -> None:
    """Return when this machine's engine answers. Installs and starts it if necessary.

    Raises `UsageError` with the commands to run if that is not allowed, or if `DOCKER_HOST` names
    an engine that is unreachable. Raises `EngineError` with the engine's last output if it does
    not start.
    """
    problem = probe()
    if not problem:
        return
    if address := os.environ.get("DOCKER_HOST"):
        hint = "Start that engine, or unset DOCKER_HOST to use this machine's own."
        raise UsageError(f"no engine answers at DOCKER_HOST={address}: {problem}", hint=hint)
    _refuse_foreign_socket(problem)
    if shutil.which("dockerd", path=_system_path()) is None:
        packages = find_known_packages(PACKAGES, "the Docker Engine", announce)
        ensure_packages(packages, "the Docker Engine", announce)
        if not probe():  # the package has started it
            return
    if Path("/run/systemd/system").is_dir():
        _start_by_systemd(announce)
    else:
        _start_directly(announce)
    _refuse_foreign_socket(probe())


def probe() -> str:
    """The reason why the engine cannot be used. Empty if it answers."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=10)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        return str(error)
    return ""


def find_leftovers(run: Path = RUN) -> list[Path]:
    """Files of an uncleanly ended engine that prevent the start of the next one.

    A PID file looks like a running engine if another process now has that number, and the socket of
    an ended containerd looks usable.
    """
    found = []
    for path, name in ((run / "docker.pid", "dockerd"), (_managed(run), "containerd")):
        if path.is_file() and not _is_running(path, name):
            found.append(path)
    sock = run / "containerd" / "containerd.sock"
    if sock.exists() and not _listens(sock):
        found.append(sock)
    return found


def _managed(run: Path) -> Path:
    return run / "docker" / "containerd" / "containerd.pid"


def _is_running(pid_file: Path, name: str) -> bool:
    try:
        pid = int(pid_file.read_text())
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except (OSError, ValueError):
        return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        attempt.settimeout(5)
        try:
            attempt.connect(str(path))
        except OSError:
            return False
    return True


def _refuse_foreign_socket(problem: str) -> None:
    if "Permission denied" in problem or "PermissionError" in problem:
        user = os.environ.get("USER", "$USER")
        hint = f"Run: sudo usermod -aG docker {user}\nThen log in again (or: newgrp docker)."
        raise UsageError("this user may not use the Docker Engine", hint=hint)


def _start_by_systemd(announce: Announce) -> None:
    start = add_root(["systemctl", "start", "docker"])
    if start is None:
        hint = "Run: sudo systemctl start docker"
        raise UsageError("the Docker Engine is not running, and starting it needs root", hint=hint)
    announce("starting the Docker Engine (systemd)")
    done = subprocess.run(start, capture_output=True, text=True)
    if done.returncode == 0 and _wait(lambda: False):
        return
    hint = "Run: journalctl -u docker -n 50"
    raise EngineError(f"the Docker Engine did not start: {done.stderr.strip()}", hint=hint)


def _start_directly(announce: Announce) -> None:
    command = add_root(["env", f"PATH={_system_path()}", "dockerd"])
    if command is None:
        hint = "Run, and leave it running: sudo dockerd"
        raise UsageError("the Docker Engine is not running, and starting it needs root", hint=hint)
    if stale := find_leftovers():
        remove = add_root(["rm", "-f", *map(str, stale)])
        subprocess.run(remove or [], check=True)
    log = LOG if os.access(LOG.parent, os.W_OK) else Path.home() / ".cache" / LOG.name
    log.parent.mkdir(parents=True, exist_ok=True)
    announce(f"starting the Docker Engine (without systemd; its log is {log})")
    with log.open("ab") as output:
        position = output.tell()
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    if not _wait(lambda: engine.poll() is not None):
        said = log.read_bytes()[position:].decode(errors="replace").strip().splitlines()
        tail = "\n".join(said[-8:])
        raise EngineError(f"the Docker Engine did not start:\n{tail}", hint=f"Its log is {log}")


def _wait(ended: Callable[[], bool]) -> bool:
    """Whether the engine answers before the deadline and before the started process ends."""
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        over = ended()
        problem = probe()
        if not problem or "Permission denied" in problem:
            return True
        if over and not _is_running(RUN / "docker.pid", "dockerd"):
            return False
        time.sleep(0.2)
    return False


def _system_path() -> str:
    """PATH with the system's own program folders, which a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
