"""Files left over by an unclean engine shutdown, and installation of packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.machine import engine, packages


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "docker" / "containerd").mkdir(parents=True)
    (tmp_path / "containerd").mkdir()
    return tmp_path


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: "not a number", id="garbage"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: str(os.getpid()), id="another process"),
        pytest.param(lambda: str(ended_process()), id="no process"),
    ],
)
def test_pid_files_without_engine_process_are_left_over(run: Path, content: Callable[[], str]):
    files = [run / "docker.pid", run / "docker" / "containerd" / "containerd.pid"]
    for file in files:
        file.write_text(content())
    assert engine.find_leftovers(run) == files


def test_pid_file_of_running_engine_is_kept(run: Path, tmp_path: Path):
    program = tmp_path / "dockerd"
    program.symlink_to(str(shutil.which("sleep")))
    process = subprocess.Popen([str(program), "60"])
    try:
        (run / "docker.pid").write_text(f"{process.pid}\n")
        named = Path(f"/proc/{process.pid}/comm")
        deadline = time.monotonic() + 10  # the kernel sets the name shortly after the start
        while named.read_text() != "dockerd\n" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.find_leftovers(run) == []
    finally:
        process.kill()
        process.wait()


def test_socket_without_listener_is_left_over(run: Path):
    path = run / "containerd" / "containerd.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert engine.find_leftovers(run) == []
    assert engine.find_leftovers(run) == [path]


def test_remote_engine_is_never_replaced_by_a_local_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="no engine answers at DOCKER_HOST=tcp://127.0.0.1:1"):
        engine.ensure_engine()


@pytest.fixture
def unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An unprivileged user, with only the given programs on PATH."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))

    def add(**programs: str) -> None:
        for name, script in programs.items():
            path = tmp_path / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    return add


@pytest.mark.parametrize("sudo", [{}, {"sudo": "exit 1"}])
def test_missing_privileges_are_reported_with_command_to_run(unprivileged, sudo):
    unprivileged(apt_get="exit 1", dpkg_query="exit 1", **sudo)
    with pytest.raises(
        UsageError, match=r"missing: tool \(the tests\), and installing .* root"
    ) as caught:
        packages.ensure_packages(["tool"], "the tests")
    assert caught.value.hint == "Run: sudo apt-get update && sudo apt-get install tool"


def test_missing_packages_are_installed_with_passwordless_sudo(unprivileged, tmp_path):
    log = tmp_path / "log"
    unprivileged(
        sudo=f'[ "$2" = true ] || echo "$*" >>{log}',
        apt_get="exit 1",
        dpkg_query='[ "$3" != there ] || printf installed',
    )
    announced: list[str] = []
    packages.ensure_packages(["there", "missing"], "a test", announced.append)
    assert announced == ["installing missing (a test)"]
    update, install = log.read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install --yes --no-install-recommends missing")


def test_installed_packages_need_no_privileges(unprivileged):
    unprivileged(dpkg_query="printf installed")
    packages.ensure_packages(["tool"], "a test")


def test_unknown_package_is_reported_with_output_of_apt(unprivileged):
    unprivileged(
        sudo='[ "$2" = true ] || exec "$2" "$3" "$4"; exit 0',
        env='echo "E: Unable to locate package tool"; exit 100',
        apt_get="exit 1",
        dpkg_query="exit 1",
    )
    with pytest.raises(UsageError, match="could not install tool:\n.*Unable to locate"):
        packages.ensure_packages(["tool"], "a test")
