"""Pipelines whose every process counts: one that fails in the middle fails the whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess  # nosec B404 - argument lists only, never a shell
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

CHUNK = 1 << 20


class Failure(Exception):
    """A job that cannot go on: `kind` is `refused`, `locked`, `usage`, `stopped` or `failed`."""

    def __init__(self, text: str, *, kind: str = "failed", hint: str = "") -> None:
        super().__init__(text)
        self.kind, self.text, self.hint = kind, text, hint


class Job:
    """What a job has done so far, and how it is stopped."""

    def __init__(self) -> None:
        self.phase = ""
        self.bytes = 0
        self.started = time.monotonic()
        self._stopped = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []

    def enter(self, phase: str) -> None:
        """Begin a phase; its bytes and time are counted anew. Raises `Failure` once stopped."""
        self.check()
        self.phase, self.bytes, self.started = phase, 0, time.monotonic()

    def check(self) -> None:
        """Raise `Failure` where the job is to stop."""
        if self._stopped.is_set():
            raise Failure("stopped: nobody waits for it any more", kind="stopped")

    def stop(self) -> None:
        """End the job's processes; the job then fails at what it is doing."""
        self._stopped.set()
        for child in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                child.kill()

    def run(
        self,
        *commands: Sequence[str],
        source: str | None = None,
        sink: Callable[[bytes], object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run commands as one pipeline, from a file (or nothing) into `sink` (or nowhere).

        What arrives at the sink is counted. Raises `Failure` with the words of the process that
        failed first, and where the sink cannot write.
        """
        self.check()
        children: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            words = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
            given: IO[bytes] | int = (
                stack.enter_context(open(source, "rb")) if source else subprocess.DEVNULL
            )
            stack.callback(_end, children)
            for command, said in zip(commands, words, strict=True):
                last = len(children) == len(commands) - 1
                child = subprocess.Popen(  # nosec B603
                    command,
                    stdin=given,
                    stdout=subprocess.DEVNULL if last and sink is None else subprocess.PIPE,
                    stderr=said,
                    env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
                )
                # Only the child holds the pipe now: it must see when the one before it ends.
                if children and children[-1].stdout:
                    children[-1].stdout.close()
                children.append(child)
                self._children.append(child)
                given = child.stdout or subprocess.DEVNULL
            if sink is not None:
                self._drain(children[-1], sink)
            for child in children:
                child.wait()
            self._children = [child for child in self._children if child not in children]
            self.check()
            _judge(commands, [child.returncode for child in children], words)

    def _drain(self, child: subprocess.Popen[bytes], sink: Callable[[bytes], object]) -> None:
        stream: Any = child.stdout
        try:
            while data := stream.read1(CHUNK):
                sink(data)
                self.bytes += len(data)
        except OSError as error:
            raise unwritable(error) from None


def unwritable(error: OSError) -> Failure:
    """The failure of a file that could not be written."""
    hint = "make room or give `backups.directory` a larger disk" if error.errno == 28 else ""
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


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
