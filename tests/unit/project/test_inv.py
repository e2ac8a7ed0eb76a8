"""The wrapper `inv`, in small checkouts whose requirements contain only Invoke."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.checkout import ROOT

TASKS = """
from invoke import task

@task
def greet(c, name="nobody"):
    import os, sys
    print("hello", name, sys.prefix, os.getcwd(), os.environ.get("VIRTUAL_ENV"))

@task
def leave(c):
    raise SystemExit(5)
"""


def invoke_lock() -> str:
    lock = (ROOT / "requirements-dev.txt").read_text()
    found = re.search(r"^invoke==.*\n(?:    --hash=.*\n)+", lock, re.MULTILINE)
    assert found
    return found[0]


def make_checkout(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(ROOT / "inv", folder)
    (folder / "tasks.py").write_text(TASKS)
    (folder / "requirements-dev.txt").write_text(invoke_lock())
    return folder


def run(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "inv"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after its first start."""
    checkout = make_checkout(tmp_path_factory.mktemp("inv") / "check out")
    first = run(checkout, "greet", "--name=first")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(f"hello first {checkout}/.venv ")
    assert "creating .venv" in first.stderr
    return checkout


def test_later_start_installs_nothing_and_passes_arguments_through(ready: Path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_NO_INDEX": "1"}
    greeted = run(ready, "greet", "--name", "a b", **nowhere)
    assert (greeted.returncode, greeted.stderr) == (0, "")
    assert greeted.stdout.startswith("hello a b ")
    assert run(ready, "leave", **nowhere).returncode == 5


def test_inv_runs_from_any_folder_and_through_a_symlink(ready: Path, tmp_path: Path):
    link = tmp_path / "inv"
    link.symlink_to(ready / "inv")
    done = subprocess.run([str(link), "greet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"hello nobody {ready}/.venv {tmp_path} None\n"


def test_active_virtual_environment_is_ignored(tmp_path: Path):
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    checkout = make_checkout(tmp_path / "checkout")
    (tmp_path / "invoke.py").write_text("raise RuntimeError('the wrong one')")
    active = {
        "VIRTUAL_ENV": str(other),
        "PATH": f"{other}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "PIP_USER": "1",
        "PIP_TARGET": str(tmp_path / "target"),
    }
    first = run(checkout, "greet", **active)
    shutil.rmtree(other)
    second = run(checkout, "greet")
    assert first.returncode == 0, first.stderr
    assert second.stdout.startswith(f"hello nobody {checkout}/.venv ")
    assert not (tmp_path / "target").exists()


def test_changed_requirements_are_installed_and_failure_is_retried(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    assert run(checkout, "greet").returncode == 0
    lock = checkout / "requirements-dev.txt"

    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, invoke_lock()) + "#\n")
    subprocess.run([f"{checkout}/.venv/bin/python", "-m", "pip", "uninstall", "-qy", "invoke"])
    refused = run(checkout, "greet")
    lock.write_text(invoke_lock() + "# a comment\n")
    healed = run(checkout, "greet")

    assert refused.returncode == 2
    assert "HASH" in refused.stderr and "pip could not install" in refused.stderr
    assert healed.returncode == 0, healed.stderr
    assert run(checkout, "greet").stderr == ""


def test_concurrent_first_starts_create_one_environment(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    started = [
        subprocess.Popen(
            [str(checkout / "inv"), "greet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=100) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum("creating .venv" in error for _, error in ended) == 1


@contextlib.contextmanager
def silent_index() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def test_killed_first_start_is_repaired_by_the_next(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    with silent_index() as server:
        index = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        killed = subprocess.Popen(
            [str(checkout / "inv"), "greet"],
            env={**os.environ, "PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        connection, _ = server.accept()  # pip has requested the index: the installation has begun
        with connection:
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
    assert (checkout / ".venv" / "bin" / "python").exists()
    assert run(checkout, "greet").returncode == 0


def test_moved_checkout_gets_a_new_environment(tmp_path: Path):
    checkout = make_checkout(tmp_path / "checkout")
    assert run(checkout, "greet").returncode == 0
    moved = checkout.rename(tmp_path / "moved")
    done = run(moved, "greet")
    assert done.stdout.startswith(f"hello nobody {moved}/.venv "), done.stderr


@pytest.fixture
def bare(tmp_path: Path):
    """A PATH with only coreutils and the scripts that a test adds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "dirname", "readlink", "sha256sum", "cut", "cat", "mkdir", "flock"):
        (folder / name).symlink_to(str(shutil.which(name)))

    def add(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return folder, add


OLD = "case $2 in *print*) echo 3.9 ;; *) exit 1 ;; esac"
WITHOUT_VENV = "case $2 in *print*) echo 3.13 ;; *ensurepip*) exit 1 ;; esac"


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ({}, "Python 3.11 or newer is needed; there is no python3 on PATH."),
        ({"python3": OLD}, "Python 3.11 or newer is needed; python3 is 3.9;"),
        (
            {"python3": WITHOUT_VENV, "id": "echo 1000", "apt-get": "exit 1"},
            "sudo apt-get update && sudo apt-get install python3.13-venv",
        ),
        ({"python3": WITHOUT_VENV, "id": "echo 0"}, "its modules venv and ensurepip are missing"),
    ],
)
def test_missing_programs_are_reported_in_one_message(tmp_path: Path, bare, programs, message):
    folder, add = bare
    for name, script in programs.items():
        add(name, script)
    checkout = make_checkout(tmp_path / "checkout")
    done = run(checkout, "--list", PATH=str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (checkout / ".venv").exists()
