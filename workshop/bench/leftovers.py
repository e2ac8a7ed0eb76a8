"""Clean-up after a benchmark that got SIGKILL: the next one ends its servers, removes its folders.

Each process that a benchmark starts has its owner in its environment, and each folder in its name.
The owner is the process that cleans up: its id and its start time, which no two processes share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

MARK = "AMANI_BENCH_OWNER"
PREFIXES = ("amani-bench-", "amani-pg-")


def owner() -> str:
    """This process as `PID.START`: the value of `MARK`, and a part of the names of folders."""
    return f"{os.getpid()}.{_started(os.getpid())}"


def folder(prefix: str) -> Path:
    """A new temporary folder of this process; `prefix` is one of `PREFIXES`."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{owner()}-"))


def sweep() -> None:
    """Kill the processes and remove the folders whose owner has ended."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _abandoned(_marked(process)):
                os.kill(int(process.name), signal.SIGKILL)
    for prefix in PREFIXES:
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*.*-*"):
            if _abandoned(left.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)


def _marked(process: Path) -> str:
    start = f"{MARK}=".encode()
    for variable in (process / "environ").read_bytes().split(b"\0"):
        if variable.startswith(start):
            return variable.removeprefix(start).decode()
    return ""


def _abandoned(name: str) -> bool:
    pid, found, started = name.partition(".")
    return bool(found) and pid.isdigit() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """The start of a process in ticks since boot; empty if it does not exist or is a zombie."""
    try:
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if rest[0] == "Z" else rest[19]
