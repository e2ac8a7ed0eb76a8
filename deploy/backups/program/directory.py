"""Dumps that several jobs make, a file a table: dumped, packed, read and unpacked again.

They are not encrypted while they lie there as files. So what is dumped has no names: however this
program ends, the kernel takes it and its room back. Only for a restore do they have names, since
pg_restore wants them.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess  # nosec B404 - argument lists only, never a shell
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from deploy.backups.program import archive
from deploy.backups.program.archive import Stored
from deploy.backups.program.pipes import CHUNK, ROOMIER, Failure, Job

_SPARE = 100
"""Descriptors for everything else."""
_TABLE = re.compile(r"(\d+); \d+ \d+ TABLE DATA ")
_OBJECTS = re.compile(r"(\d+); \d+ \d+ BLOBS ")


def capacity() -> int:
    """How many files there may be, each of which is kept open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _SPARE


class Nameless:
    """Files that only this program can find, by what they were called in their place."""

    def __init__(self, folder: str) -> None:
        self.place = os.path.join(folder, "dump")
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Nameless:
        os.mkdir(self.place, 0o700)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.place, ignore_errors=True)

    @property
    def size(self) -> int:
        """Bytes of all files, also while somebody writes them."""
        return sum(os.fstat(file.fileno()).st_size for file in list(self._files.values()))

    def take(self) -> None:
        """Take over what lies in the place, finished or not; its names go."""
        with os.scandir(self.place) as entries:
            for entry in entries:
                if not entry.name.startswith("."):  # what NFS calls a file without a name
                    self._files[entry.name] = open(entry.path, "rb")
                    os.unlink(entry.path)

    @contextlib.contextmanager
    def linked(self) -> Iterator[str]:
        """A folder in memory through which a program finds the files by their names."""
        with tempfile.TemporaryDirectory() as folder:
            for name, file in self._files.items():
                path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
                os.symlink(path, os.path.join(folder, name))
            yield folder


def dump(job: Job, command: Sequence[str], environment: Mapping[str, str], files: Nameless) -> None:
    """Let pg_dump write files, each of which loses its name as soon as it has one."""
    # Each job compresses what it dumps: that is most of the work. Nothing has to outlive a loss
    # of power yet, the archive will.
    apart = [*command, "--format=directory", "--compress=zstd:3", "--no-sync"]
    apart.append(f"--file={files.place}")
    with job.metered(lambda: files.size):
        _run(job, apart, watch=files.take, environment=environment)
    files.take()


def packing(folder: str) -> list[str]:
    """The command that prints the files of a folder as one."""
    return ["tar", "--create", "--dereference", f"--directory={folder}", "."]


@contextlib.contextmanager
def unpacked(job: Job, stored: Stored) -> Iterator[str]:
    """The folder that was dumped, for as long as the block lasts.

    Raises `Failure` where there is no room for it, and where a part is missing.
    """
    archive.require_room(stored.unpacked, ": it is restored by several jobs, out of files")
    place = os.path.join(archive.FOLDER, f".restoring-{os.getpid()}{archive.PARTIAL}")
    job.enter("unpack", stored.size)
    try:
        os.mkdir(place, 0o700)
        unpack = ["tar", "--extract", "--no-same-owner", "--no-same-permissions"]
        unpack.append(f"--directory={place}")
        _run(job, *stored.commands, unpack, source=stored.path)
        with os.scandir(place) as entries:
            _require_all(stored, sum(entry.stat().st_size for entry in entries))
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read(job: Job, stored: Stored) -> None:
    """Read every file of an archive to its end, none of which touches the disk.

    Not by pg_restore: to it a file that was cut is a table with fewer rows (17.12, tried).
    Raises `Failure` where one is damaged, or one that the table of contents tells of is missing.
    """
    job.enter("read", stored.size)
    with tempfile.TemporaryDirectory() as folder:
        contents = _Contents(folder)
        job.run(*stored.commands, source=stored.path, reader=contents.read)
        if contents.problem:
            raise Failure(contents.problem)
        _require_all(stored, sum(contents.sizes.values()))
        listed = bytearray()
        job.run(["pg_restore", "--list", folder], sink=listed.extend)
        for name in _files_of(listed.decode().splitlines(), folder):
            if not contents.sizes.get(name):
                raise Failure(f"the archive lacks {name}, which its table of contents tells of")


class _Contents:
    """The files of an archive: what holds rows is decompressed, all others go into a folder."""

    def __init__(self, folder: str) -> None:
        self.sizes: dict[str, int] = {}
        self.problem = ""
        self._folder = folder

    def read(self, stream: IO[bytes]) -> None:
        """Read a tar archive to its end.

        What is wrong with it is a `problem` for later: the process that wrote the stream may have
        a better word for it.
        """
        with tempfile.TemporaryFile() as words:
            with subprocess.Popen(  # nosec B603 B607
                ["zstd", "-q", "-d"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=words,
                start_new_session=True,
            ) as rows:
                try:
                    # Frames one after the other are a frame, so one process does for all files.
                    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as members:
                        for member in members:
                            if (content := members.extractfile(member)) is not None and rows.stdin:
                                self._take(os.path.basename(member.name), content, rows.stdin)
                except (tarfile.TarError, OSError) as error:
                    self.problem = f"the archive cannot be taken apart: {error}"
                while stream.read(CHUNK):
                    pass
                with contextlib.suppress(BrokenPipeError):
                    rows.communicate()
            words.seek(0)
            if rows.returncode:
                self.problem = f"a table's file is damaged: {words.read().decode().strip()}"

    def _take(self, name: str, content: IO[bytes], rows: IO[bytes]) -> None:
        counted = 0
        with contextlib.ExitStack() as stack:
            sink = rows
            if not name.endswith(".zst"):
                sink = stack.enter_context(open(os.path.join(self._folder, name), "wb"))
            while data := content.read(CHUNK):
                sink.write(data)
                counted += len(data)
        self.sizes[name] = counted


def _files_of(contents: Sequence[str], folder: str) -> Iterator[str]:
    """The files with rows and large objects that a table of contents tells of."""
    for line in contents:
        if found := _TABLE.match(line):
            yield f"{found[1]}.dat.zst"
        elif found := _OBJECTS.match(line):
            with open(os.path.join(folder, f"blobs_{found[1]}.toc"), encoding="ascii") as file:
                yield from (f"{entry.split()[1]}.zst" for entry in file)


def _require_all(stored: Stored, size: int) -> None:
    if size != stored.unpacked:
        raise Failure(f"the archive holds {size} bytes of files, and {stored.unpacked} were dumped")


def _run(
    job: Job,
    *commands: Sequence[str],
    source: str | None = None,
    watch: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run what writes files beside the archive; where there is no room for them, say so."""
    try:
        job.run(*commands, source=source, watch=watch, environment=environment)
    except Failure as failure:
        hint = ROOMIER if "No space left on device" in failure.text else failure.hint
        raise Failure(failure.text, kind=failure.kind, hint=hint) from None
