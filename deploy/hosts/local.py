"""This machine as a host: its processes, files and engine socket, without a transport."""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # nosec B404 - argument lists only, never a shell
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from deploy.errors import CommandFailed, HostUnreachable, UsageError
from deploy.hosts.docker_engine import DockerEngine
from deploy.hosts.host import DEFAULT_TIMEOUTS, CommandResult, HostTimeouts

_KILL_AFTER = 2.0


class LocalHost:
    def __init__(
        self,
        name: str = "local",
        address: str = "127.0.0.1",
        timeouts: HostTimeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self.name = name
        self.address = address
        self._timeouts = timeouts

    @cached_property
    def engine(self) -> DockerEngine:
        """The Docker Engine at `DOCKER_HOST`, or at its default socket."""
        return DockerEngine(self.name, self._dial_engine)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> CommandResult:
        """As `Host.run`. Status 124: killed after `timeout`. Status 128 + N: ended by signal N."""
        timeout = self._timeouts.command if timeout is None else timeout
        try:
            # In its own session, so that its children can be killed with it.
            process = subprocess.Popen(  # nosec B603
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            status = 127 if isinstance(error, FileNotFoundError) else 126
            return self._result(argv, status, b"", str(error).encode(), check)
        with process:
            try:
                stdout, stderr = process.communicate(stdin or b"", timeout)
                status = process.returncode
            except subprocess.TimeoutExpired:
                stdout, stderr = _end(process)
                stderr += f"\nnot ended within {timeout:g} s".encode()
                status = 124
            except BaseException:
                _end(process)
                raise
        return self._result(argv, 128 - status if status < 0 else status, stdout, stderr, check)

    def _result(
        self, argv: Sequence[str], status: int, stdout: bytes, stderr: bytes, check: bool
    ) -> CommandResult:
        result = CommandResult(tuple(argv), status, stdout, stderr)
        if check and status != 0:
            output = (stderr or stdout).decode(errors="replace")
            raise CommandFailed(self.name, result.argv, status, output)
        return result

    def write_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        target = Path(path)
        temporary = ""
        try:
            _make_folder(target.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=".write.", dir=target.parent)
            with open(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(descriptor, mode)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, target)
            _sync_folder(target.parent)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise CommandFailed(self.name, ("write", path), error.errno or 1, str(error)) from error

    def read_file(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandFailed(self.name, ("read", path), error.errno or 1, str(error)) from error

    def refusal(self, address: str, port: int) -> str:
        try:
            socket.create_connection((address, port), timeout=5.0).close()
        except OSError as error:
            return str(error)
        return ""

    def close(self) -> None:
        self.engine.close()

    def _dial_engine(self, timeout: float) -> socket.socket:
        path = find_engine_socket()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise HostUnreachable(
                f"{self.name}: no Docker Engine answers at {path}: {error.strerror}",
                hint="Install it (`sudo apt-get install docker.io`), start it, and add this user "
                "to the group docker, or name its socket in DOCKER_HOST.",
                host=self.name,
            ) from error
        return connection


def find_engine_socket() -> str:
    """The path of this machine's engine socket: `DOCKER_HOST`, the default one, or the rootless
    one.

    Raises `UsageError` if `DOCKER_HOST` is not a Unix socket.
    """
    configured = os.environ.get("DOCKER_HOST", "")
    if configured:
        if not configured.startswith("unix://"):
            raise UsageError(
                f"DOCKER_HOST is {configured!r}, which is not a Unix socket",
                hint="Unset it, or declare the other machine as a host of an environment.",
            )
        return configured.removeprefix("unix://")
    usual = "/var/run/docker.sock"
    rootless = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), "docker.sock")
    return rootless if not os.path.exists(usual) and os.path.exists(rootless) else usual


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Terminate a process and its children; kill them if they do not end."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            return process.communicate(timeout=_KILL_AFTER)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            continue
    return b"", b""


def _make_folder(folder: Path) -> None:
    """Create the folder and its missing parents with mode 0700 (`Path.mkdir` uses 0777 for
    parents)."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
