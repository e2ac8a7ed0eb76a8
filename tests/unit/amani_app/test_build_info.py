from __future__ import annotations

import json
import subprocess
from pathlib import Path

from amani_app.build_info import load_build_info

FILE = {
    "version": "1.2.3",
    "commit": "c0ffee",
    "build_time": "2026-11-24T08:00:00Z",
    "build_number": "7",
    "branch": "main",
}


def test_build_file_of_the_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "build-info.json").write_text(json.dumps(FILE))
    assert load_build_info(tmp_path, {}).as_dict() == FILE


def test_variables_override_the_file(tmp_path: Path) -> None:
    (tmp_path / "build-info.json").write_text(json.dumps(FILE))
    info = load_build_info(tmp_path, {"BUILD_VERSION": "2.0.0", "BUILD_SHA": "beef"})
    assert info.as_dict() == {**FILE, "version": "2.0.0", "commit": "beef"}


def test_checkout_reads_git(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)

    git("init", "-q", "-b", "trunk")
    git("commit", "-q", "--allow-empty", "-m", "first", "--date=2026-01-01T00:00:00Z")
    git("tag", "v0.3.0")
    info = load_build_info(tmp_path, {})
    assert (info.version, info.branch, info.build_number) == ("0.3.0", "trunk", "1")
    assert len(info.commit) == 40
    assert info.build_time.endswith("Z")


def test_invalid_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "build-info.json").write_text("{")
    assert load_build_info(tmp_path, {"BUILD_SHA": "beef"}).as_dict() == {
        "version": "unknown",
        "commit": "beef",
        "build_time": "unknown",
        "build_number": "unknown",
        "branch": "unknown",
    }


def test_missing_information_is_unknown(tmp_path: Path) -> None:
    assert set(load_build_info(tmp_path, {}).as_dict().values()) == {"unknown"}
