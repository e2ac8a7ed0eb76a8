"""Dumps by several jobs, with a file for each table: dump, pack, read and unpack them.

These files are not encrypted. So a dump unlinks each file while it is written: however this program
ends, the kernel frees the file. Only a restore has linked files, since pg_restore needs their
names.
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
from deploy.backups.program.archive import StoredArchive
from deploy.backups.program.pipes import CHUNK, ROOMIER, BackupJob, Failure

_SPARE = 100
"""File descriptors that everything else needs."""
_TABLE = re.compile(r"(\d+); \d+ \d+ TABLE DATA ")
_OBJECTS = re.compile(r"(\d+); \d+ \d+ BLOBS ")


def capacity() -> int:
    """The most files that a dump may have: each is kept open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _SPARE


class UnlinkedFiles:
    """The files of a dump, which are open but unlinked, by their original names."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(folder, "dump")
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> UnlinkedFiles:
        os.mkdir(self.folder, 0o700)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def size(self) -> int:
        """Bytes of all files, also while they are written."""
        return sum(os.fstat(file.fileno()).st_size for file in list(self._files.values()))

    def take(self) -> None:
        """Open and unlink every file in the folder, complete or not."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):  # NFS's name for an unlinked file
                    self._files[entry.name] = open(entry.path, "rb")
                    os.unlink(entry.path)

    @contextlib.contextmanager
    def linked(self) -> Iterator[str]:
        """A folder in memory with links to the open files, for other programs."""
        with tempfile.TemporaryDirectory() as folder:
            for name, file in self._files.items():
                path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
                os.symlink(path, os.path.join(folder, name))
            yield folder


def dump(
    job: BackupJob, command: Sequence[str], environment: Mapping[str, str], files: UnlinkedFiles
) -> None:
    """Run pg_dump, and unlink each of its files as soon as it appears."""
    # Each job compresses its tables: that is most of the work. The files need no sync: only the
    # archive must survive a power failure.
    apart = [*command, "--format=directory", "--compress=zstd:3", "--no-sync"]
    apart.append(f"--file={files.folder}")
    with job.metered(lambda: files.size):
        _run(job, apart, watch=files.take, environment=environment)
    files.take()


def packing(folder: str) -> list[str]:
    """The command that prints the files of a folder as a tar archive."""
    return ["tar", "--create", "--dereference", f"--directory={folder}", "."]


@contextlib.contextmanager
def unpacked(job: BackupJob, stored: StoredArchive) -> Iterator[str]:
    """Unpack an archive into a folder, which is removed after the block.

    Raises `Failure` if there is no room for it, or if files are missing.
    """
    archive.require_room(stored.unpacked, ": several jobs restore from unpacked files")
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


def read(job: BackupJob, stored: StoredArchive) -> None:
    """Read every file of an archive to its end, without the disk.

    pg_restore would not do: it accepts a truncated file as a table with fewer rows (tested with
    17.12). Raises `Failure` if a file is damaged, or listed in the table of contents but missing.
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
                raise Failure(f"the archive lacks {name}, which its table of contents lists")


class _Contents:
    """Reads the files of an archive: decompresses those with rows, stores the others."""

    def __init__(self, folder: str) -> None:
        self.sizes: dict[str, int] = {}
        self.problem = ""
        self._folder = folder

    def read(self, stream: IO[bytes]) -> None:
        """Read a tar archive to its end.

        An error is stored in `problem`: the process that writes the stream may report a better
        one.
        """
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(  # nosec B603 B607
                ["zstd", "-q", "-d"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            ) as rows:
                try:
                    # Concatenated frames are valid input, so one process reads all files.
                    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as members:
                        for member in members:
                            if (content := members.extractfile(member)) is not None and rows.stdin:
                                self._take(os.path.basename(member.name), content, rows.stdin)
                except (tarfile.TarError, OSError) as error:
                    self.problem = f"the archive cannot be unpacked: {error}"
                while stream.read(CHUNK):
                    pass
                with contextlib.suppress(BrokenPipeError):
                    rows.communicate()
            errors.seek(0)
            if rows.returncode:
                self.problem = f"a table's file is damaged: {errors.read().decode().strip()}"

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
    """The files with rows and large objects that a table of contents lists."""
    for line in contents:
        if found := _TABLE.match(line):
            yield f"{found[1]}.dat.zst"
        elif found := _OBJECTS.match(line):
            with open(os.path.join(folder, f"blobs_{found[1]}.toc"), encoding="ascii") as file:
                yield from (f"{entry.split()[1]}.zst" for entry in file)


def _require_all(stored: StoredArchive, size: int) -> None:
    if size != stored.unpacked:
        raise Failure(f"the archive holds {size} bytes of files, but {stored.unpacked} were dumped")


def _run(
    job: BackupJob,
    *commands: Sequence[str],
    source: str | None = None,
    watch: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run commands that write files beside the archive, with a hint if the disk is full."""
    try:
        job.run(*commands, source=source, watch=watch, environment=environment)
    except Failure as failure:
        hint = ROOMIER if "No space left on device" in failure.text else failure.hint
        raise Failure(failure.text, kind=failure.kind, hint=hint) from None
