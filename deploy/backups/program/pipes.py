"""Pipelines whose every process counts: one that fails in the middle fails the whole."""

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
ROOMIER = "make room or give `backups.directory` a larger disk"
_TICK = 0.02
"""Seconds between two looks at what processes do."""


class Failure(Exception):
    """A job that cannot go on: `kind` is `refused`, `locked`, `usage`, `stopped` or `failed`."""

    def __init__(self, text: str, *, kind: str = "failed", hint: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.hint = kind, text, hint


class Job:
    """What a job has done so far, and how it is stopped."""

    def __init__(self) -> None:
        self.phase = ""
        self.total = 0
        """Bytes that the phase is expected to have at its end; 0: nobody knows."""
        self.started = time.monotonic()
        self._done = 0
        self._meter: Callable[[], int] | None = None
        self._stopped = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []

    def enter(self, phase: str, total: int = 0) -> None:
        """Begin a phase; its bytes and time are counted anew. Raises `Failure` once stopped."""
        self.check()
        self.phase, self.total, self.done, self.started = phase, total, 0, time.monotonic()

    @property
    def done(self) -> int:
        """What the phase has done: as its meter shows, or else as it was counted."""
        if (meter := self._meter) is not None:
            with contextlib.suppress(OSError, ValueError):  # closed this moment
                return meter()
        return self._done

    @done.setter
    def done(self, count: int) -> None:
        self._done = count

    @contextlib.contextmanager
    def metered(self, meter: Callable[[], int]) -> Iterator[None]:
        """Within the block the meter tells how many bytes are done."""
        self._meter = meter
        try:
            yield
        finally:
            self._meter = None

    def check(self) -> None:
        """Raise `Failure` where the job is to stop."""
        if self._stopped.is_set():
            raise Failure("stopped: nobody waits for it any more", kind="stopped")

    def stop(self) -> None:
        """End the job's processes; the job then fails at what it is doing."""
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

        What was read of the file is counted, without one what arrives at the sink. A `reader`
        takes the stream itself, to its end; `watch` is called again and again while commands
        without either run. Raises `Failure` with the words of the process that failed first, and
        where the sink cannot write.
        """
        self.check()
        children: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            words = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
            given: IO[bytes] | int = subprocess.DEVNULL
            if source:
                file = given = stack.enter_context(open(source, "rb"))
                # The child reads by the same descriptor, so its place in the file is ours.
                meter = self.metered(lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR))
                stack.enter_context(meter)
            if sink is not None:
                reader = self._pouring(sink)
            stack.callback(_end, children)
            for command, said in zip(commands, words, strict=True):
                last = len(children) == len(commands) - 1
                child = subprocess.Popen(  # nosec B603
                    command,
                    stdin=given,
                    stdout=subprocess.DEVNULL if last and reader is None else subprocess.PIPE,
                    stderr=said,
                    umask=0o077,
                    # A group of its own, so that what it starts ends with it.
                    start_new_session=True,
                    env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
                )
                # Only the child holds the pipe now: it must see when the one before it ends.
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
            _judge(commands, [child.returncode for child in children], words)

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
    """The failure of a file that could not be written."""
    hint = ROOMIER if error.errno == errno.ENOSPC else ""
    return Failure(f"cannot write the archive: {error.strerror}", hint=hint)


def _judge(
    commands: Sequence[Sequence[str]], statuses: Sequence[int], words: Sequence[IO[bytes]]
) -> None:
    failed = [number for number, status in enumerate(statuses) if status]
    if not failed:
        return
    # Who writes into a pipe that nobody reads is a victim: the culprit stands behind it.
    worst = next((n for n in failed if statuses[n] != -signal.SIGPIPE), failed[0])
    words[worst].seek(0)
    tail = words[worst].read().decode(errors="replace").strip().splitlines()[-8:]
    name = os.path.basename(commands[worst][0])
    raise Failure("\n".join([f"`{name}` {_ending(statuses[worst])}", *tail]))


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"


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
