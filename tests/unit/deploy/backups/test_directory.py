"""Dumps in directory format, packed and unpacked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deploy.backups.program import archive, directory
from deploy.backups.program.archive import Stored
from deploy.backups.program.pipes import Failure, Job

FILES = {"toc.dat": b"what there is", "7.dat.zst": b"rows" * 100_000, "8.dat.zst": b""}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """The archive of a folder whose files are unlinked while they are written."""
    monkeypatch.setattr(archive, "FOLDER", str(tmp_path))
    job = Job()
    with directory.Nameless(str(tmp_path)) as files:
        place = Path(files.place)
        assert mode(place) == 0o700
        for name, content in FILES.items():
            with (place / name).open("wb") as file:
                file.write(content[:5])
                file.flush()
                files.take()
                file.write(content[5:])
        assert list(place.iterdir()) == [] and files.size == sum(map(len, FILES.values()))
        with files.linked() as links:
            _, size = archive.write(job, str(tmp_path), [directory.packing(links)], [], {})
        made = {"size": size, "format": "directory", "unpacked": files.size, "database_size": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    return archive.reading(str(tmp_path), False, "", made)


def test_unpacked_archive_is_private_and_removed_after_use(stored: Stored, tmp_path: Path):
    with pytest.raises(ZeroDivisionError), directory.unpacked(Job(), stored) as folder:
        found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        assert found == FILES
        assert mode(Path(folder)) == 0o700
        assert {mode(path) for path in Path(folder).iterdir()} == {0o600}
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["archive"]


@pytest.mark.parametrize(
    "wrong, words", [(1, "bytes of files, and 4000"), (1 << 60, "it is restored by several jobs")]
)
def test_archive_of_wrong_size_or_without_space_is_rejected(
    stored: Stored, tmp_path: Path, wrong: int, words: str
):
    told = stored._replace(unpacked=stored.unpacked + wrong)
    with pytest.raises(Failure, match=words), directory.unpacked(Job(), told):
        raise AssertionError("it was unpacked")
    assert os.listdir(tmp_path) == ["archive"]
