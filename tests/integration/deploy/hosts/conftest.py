"""A real sshd on loopback in front of this machine's real engine, and an image to run there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from deploy.hosts.connect import connect
from deploy.hosts.host import Endpoint, Host
from deploy.images.bases import ensure_bases
from tests.support.waiting import eventually

USER = os.environ.get("USER") or "root"


@dataclass(frozen=True)
class Config:
    """The settings of a host in an environment; fits `HostConfig`."""

    name: str = "web1"
    connection: str = "ssh"
    address: str = "127.0.0.1"
    port: int = 22
    user: str = USER
    identity_file: str | None = None
    host_keys: tuple[str, ...] = ()
    jump: Endpoint | None = None


def make_key(path: Path, passphrase: str = "") -> Path:
    """A new key pair; the public half lies beside it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path], check=True
    )
    return path


def public(key: Path) -> str:
    """The public half, as it is pinned."""
    return key.with_suffix(".pub").read_text().strip()


@dataclass
class Server:
    """A running sshd."""

    folder: Path
    port: int
    host_key: Path
    user_key: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def config(self) -> Config:
        """How to reach it."""
        return Config(
            port=self.port, identity_file=str(self.user_key), host_keys=(public(self.host_key),)
        )

    def log(self) -> str:
        """The content of the server's log."""
        return (self.folder / "log").read_text()

    def connections(self) -> list[int]:
        """Process ids of those of its children that serve a connection."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def signal_connections(self, number: signal.Signals) -> None:
        """Send a signal to every process that serves a connection."""
        for pid in self.connections():
            below = subprocess.run(
                ["pgrep", "--parent", str(pid), "sshd"], capture_output=True, text=True
            )
            for each in [*map(int, below.stdout.split()), pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)


def start_sshd(folder: Path, *options: str) -> Server:
    """Start an sshd of our own on a free port of 127.0.0.1."""
    sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    assert sshd, "these tests need sshd (apt-get install openssh-server)"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(exist_ok=True)
    host_key, user_key = make_key(folder / "host"), make_key(folder / "user")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        *options,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {user_key}.pub",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "LogLevel VERBOSE",
    ]
    (folder / "config").write_text("\n".join(settings) + "\n")
    process = subprocess.Popen([sshd, "-D", "-f", folder / "config", "-E", folder / "log"])
    server = Server(folder, port, host_key, user_key, process)
    eventually(lambda: (folder / "log").exists() and "listening on" in server.log())
    return server


def stop_sshd(server: Server) -> None:
    """End it with its connections."""
    server.signal_connections(signal.SIGKILL)
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd with Debian's defaults, for tests that do it no harm."""
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    stop_sshd(server)


@pytest.fixture
def new_sshd(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts an sshd for this test alone, with the options given."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(start_sshd(tmp_path / f"sshd-{len(servers)}", *options))
        return servers[-1]

    yield start
    for server in servers:
        stop_sshd(server)


@pytest.fixture(scope="session")
def restricted_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd that forwards nothing: the engine is reached through its own client there."""
    server = start_sshd(tmp_path_factory.mktemp("restricted"), "DisableForwarding yes")
    yield server
    stop_sshd(server)


def _host(kind: str, request: pytest.FixtureRequest) -> Host:
    if kind == "local":
        return connect(Config(connection="local"))
    return connect(request.getfixturevalue("sshd" if kind == "ssh" else "restricted_sshd").config)


@pytest.fixture(scope="session")
def host(sshd: Server) -> Iterator[Host]:
    """This machine over SSH."""
    host = connect(sshd.config)
    yield host
    host.close()


@pytest.fixture(scope="session", params=["local", "ssh", "ssh-without-forwarding"])
def engine_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """This machine with its engine, over each kind of connection."""
    host = _host(request.param, request)
    yield host
    host.close()


@pytest.fixture
def ssh_host(sshd: Server) -> Iterator[Host]:
    """A connection of this test's own."""
    host = connect(sshd.config)
    yield host
    host.close()


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tiny image: busybox and nothing else."""
    busybox = shutil.which("busybox")
    assert busybox, "these tests need busybox (apt-get install busybox-static)"
    root = tmp_path_factory.mktemp("image")
    for folder in ("bin", "tmp", "data"):
        (root / folder).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for applet in ("sh", "cat", "sleep", "echo", "id", "grep", "seq", "true", "printf"):
        (root / "bin" / applet).symlink_to("busybox")
    reference = f"amani-test-hosts:{uuid.uuid4().hex[:12]}"
    archive = subprocess.run(["tar", "-C", root, "-c", "."], check=True, capture_output=True)
    subprocess.run(
        ["docker", "import", "-", reference], input=archive.stdout, check=True, capture_output=True
    )
    yield reference
    subprocess.run(["docker", "rmi", "--force", reference], check=True, capture_output=True)


@pytest.fixture
def name() -> Iterator[str]:
    """A name for the objects that this test creates in the engine, which are removed after it."""
    name = f"amani-test-{uuid.uuid4().hex[:12]}"
    yield name
    for kind, remove in (("container", "--force"), ("network", ""), ("volume", "")):
        ask = ["docker", kind, "ls", "--quiet", "--filter", f"name={name}"]
        ask += ["--all"] if kind == "container" else []
        found = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.split()
        for each in found:
            subprocess.run(
                ["docker", kind, "rm", *filter(None, [remove]), each], capture_output=True
            )


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a registry on loopback."""
    ensure_bases(["registry:2"])
    run = ["docker", "run", "--detach", "--publish", "127.0.0.1::5000", "registry:2"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    ask = ["docker", "port", container, "5000/tcp"]
    address = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()

    def answers() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{address}/v2/", timeout=2).ok
        return False

    eventually(answers)
    yield address
    subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True)
