"""Pipelines of processes, which fail if any of the processes fails."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess  # nosec B404 - argument lists only, never a shell
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

CHUNK = 1 << 20
ROOMIER = "free some space, or put `backups.directory` on a larger disk"
_TICK = 0.02
"""Seconds between two calls of `watch`."""


class Failure(Exception):
    """A job failed; `kind` is `refused`, `locked`, `usage`, `stopped` or `failed`."""

    def __init__(self, text: str, *, kind: str = "failed", hint: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.hint = kind, text, hint


class BackupJob:
    """The progress of a job, and its processes, which can be stopped."""

    def __init__(self) -> None:
        self.phase = ""
        self.total = 0
        """Bytes that the phase is expected to process; 0: unknown."""
        self.started = time.monotonic()
        self._done = 0
        self._meter: Callable[[], int] | None = None
        self._stopped = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []

    def enter(self, phase: str, total: int = 0) -> None:
        """Begin a phase and reset the progress. Raises `Failure` if the job was stopped."""
        self.check()
        self.phase, self.total, self.done, self.started = phase, total, 0, time.monotonic()

    @property
    def done(self) -> int:
        """Bytes that the phase has processed, from its meter or else its counter."""
        if (meter := self._meter) is not None:
            with contextlib.suppress(OSError, ValueError):  # closed in the meantime
                return meter()
        return self._done

    @done.setter
    def done(self, count: int) -> None:
        self._done = count

    @contextlib.contextmanager
    def metered(self, meter: Callable[[], int]) -> Iterator[None]:
        """Take the processed bytes from `meter` during the block."""
        self._meter = meter
        try:
            yield
        finally:
            self._meter = None

    def check(self) -> None:
        """Raise `Failure` if the job was stopped."""
        if self._stopped.is_set():
            raise Failure("the job was stopped", kind="stopped")

    def stop(self) -> None:
        """Kill the job's processes; the job then fails."""
        self._stopped.set()
        for child in list(self._children):
            _kill(child)

    def run(
        self,
        *commands: Sequence[str],
        source: str | None = None,
        sink: Callable[[bytes], object] | None = None,
        reader: Callable[[IO[bytes]], None] | None = None,
        watch: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run commands as one pipeline, from a file (or nothing) into `sink` (or nowhere).

        Progress is the bytes read from the file, or without one those passed to the sink. A
        `reader` reads the stream itself, to its end. `watch` is called repeatedly while commands
        with neither of them run. Raises `Failure` with the error output of the process that
        failed first, or if the sink cannot write.
        """
        self.check()
        children: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
            given: IO[bytes] | int = subprocess.DEVNULL
            if source:
                file = given = stack.enter_context(open(source, "rb"))
                # The child shares the descriptor, and so the position in the file.
                meter = self.metered(lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR))
                stack.enter_context(meter)
            if sink is not None:
                reader = self._pouring(sink)
            stack.callback(_end, children)
            for command, stderr in zip(commands, errors, strict=True):
                last = len(children) == len(commands) - 1
                child = subprocess.Popen(  # nosec B603
                    command,
                    stdin=given,
                    stdout=subprocess.DEVNULL if last and reader is None else subprocess.PIPE,
                    stderr=stderr,
                    umask=0o077,
                    # A group of its own, so that its children are killed with it.
                    start_new_session=True,
                    env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
                )
                # Only the child may hold the pipe, to see the end of the process before it.
                if children and children[-1].stdout:
                    children[-1].stdout.close()
                children.append(child)
                self._children.append(child)
                given = child.stdout or subprocess.DEVNULL
            if reader is not None and (stream := children[-1].stdout) is not None:
                reader(stream)
            for child in children:
                _await(child, watch)
            self._children = [child for child in self._children if child not in children]
            self.check()
            _judge(commands, [child.returncode for child in children], errors)

    def _pouring(self, sink: Callable[[bytes], object]) -> Callable[[Any], None]:
        def pour(stream: Any) -> None:
            try:
                while data := stream.read1(CHUNK):
                    sink(data)
                    self._done += len(data)
            except OSError as error:
                raise unwritable(error) from None

        return pour


def unwritable(error: OSError) -> Failure:
    """The failure for an archive that cannot be written."""
    hint = ROOMIER if error.errno == errno.ENOSPC else ""
    return Failure(f"cannot write the archive: {error.strerror}", hint=hint)


def _judge(
    commands: Sequence[Sequence[str]], statuses: Sequence[int], errors: Sequence[IO[bytes]]
) -> None:
    failed = [number for number, status in enumerate(statuses) if status]
    if not failed:
        return
    # SIGPIPE is a consequence: the cause is the process after it, which no longer reads.
    worst = next((n for n in failed if statuses[n] != -signal.SIGPIPE), failed[0])
    errors[worst].seek(0)
    tail = errors[worst].read().decode(errors="replace").strip().splitlines()[-8:]
    name = os.path.basename(commands[worst][0])
    raise Failure("\n".join([f"`{name}` {_ending(statuses[worst])}", *tail]))


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"


def _await(child: subprocess.Popen[bytes], watch: Callable[[], None] | None) -> None:
    while watch is not None:
        watch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_TICK)
            break
    child.wait()


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        _kill(child)
        child.wait()
        if child.stdout:
            child.stdout.close()
