"""Dumps as a directory: unlinked files, packed and unpacked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deploy.backups.program import archive, directory
from deploy.backups.program.archive import StoredArchive
from deploy.backups.program.pipes import BackupJob, Failure

FILES = {"toc.dat": b"what there is", "7.dat.zst": b"rows" * 100_000, "8.dat.zst": b""}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredArchive:
    """The archive of a folder whose files were unlinked while they were written."""
    monkeypatch.setattr(archive, "FOLDER", str(tmp_path))
    job = BackupJob()
    with directory.UnlinkedFiles(str(tmp_path)) as files:
        folder = Path(files.folder)
        assert mode(folder) == 0o700
        for name, content in FILES.items():
            with (folder / name).open("wb") as file:
                file.write(content[:5])
                file.flush()
                files.take()
                file.write(content[5:])
        assert list(folder.iterdir()) == [] and files.size == sum(map(len, FILES.values()))
        with files.linked() as links:
            _, size = archive.write(job, str(tmp_path), [directory.packing(links)], [], {})
        made = {"size": size, "format": "directory", "unpacked": files.size, "database_size": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    return archive.reading(str(tmp_path), False, "", made)


def test_an_archive_is_unpacked_for_root_alone_and_removed(stored: StoredArchive, tmp_path: Path):
    with pytest.raises(ZeroDivisionError), directory.unpacked(BackupJob(), stored) as folder:
        found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        assert found == FILES
        assert mode(Path(folder)) == 0o700
        assert {mode(path) for path in Path(folder).iterdir()} == {0o600}
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["archive"]


@pytest.mark.parametrize(
    "wrong, words", [(1, "bytes of files, but 4000"), (1 << 60, "several jobs restore from")]
)
def test_an_archive_of_another_size_or_without_room_is_not_unpacked(
    stored: StoredArchive, tmp_path: Path, wrong: int, words: str
):
    told = stored._replace(unpacked=stored.unpacked + wrong)
    with pytest.raises(Failure, match=words), directory.unpacked(BackupJob(), told):
        raise AssertionError("it was unpacked")
    assert os.listdir(tmp_path) == ["archive"]
