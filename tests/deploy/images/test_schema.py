"""The schema's head, read from migrations that are never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.images.schema import read_head


def write(folder: Path, revision: str, down: str) -> None:
    text = f"raise RuntimeError\nrevision: str = {revision!r}\ndown_revision = {down}\n"
    (folder / f"{revision}.py").write_text(text)


def test_the_head_is_the_revision_that_none_follows(tmp_path: Path):
    write(tmp_path, "a1", "None")
    write(tmp_path, "c3", "('b2', 'b1')")
    write(tmp_path, "b2", "'a1'")
    write(tmp_path, "b1", "'a1'")
    assert read_head(tmp_path) == "c3"


def test_a_service_without_migrations_has_no_head(tmp_path: Path):
    assert read_head(tmp_path / "versions") == ""


def test_several_heads_are_refused_by_name(tmp_path: Path):
    write(tmp_path, "a1", "None")
    write(tmp_path, "b1", "'a1'")
    write(tmp_path, "b2", "'a1'")
    with pytest.raises(UsageError, match="several heads: b1, b2"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("revision = (", "is no Python"),
        ("revision = make()", "x.py:1: `revision` must be a plain value"),
        ("down_revision = None", "`revision` must be a plain string"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_head(tmp_path)
