"""The migration history, read without running the migrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.database.checkout import read_checkout
from deploy.database.revisions import LABEL, History, Revision, read_label
from deploy.errors import UsageError


def write(folder: Path, revision: str, down: str | None, kind: str = "expand") -> None:
    text = f'"""Words.\n\nClass: {kind}\n"""\nraise RuntimeError\n'
    text += f"revision: str = {revision!r}\ndown_revision = {down!r}\n"
    (folder / f"{revision}.py").write_text(text)


def test_history_is_ordered_and_survives_label_round_trip(tmp_path: Path):
    write(tmp_path, "a", "c", "contract")
    write(tmp_path, "b", None)
    write(tmp_path, "c", "b", "backfill")
    history = read_checkout(tmp_path)
    assert history == History(
        (Revision("b", "expand"), Revision("c", "backfill"), Revision("a", "contract"))
    )
    assert history.head == "a"
    assert read_label({LABEL: history.label()}) == history


def test_no_migrations_give_empty_history(tmp_path: Path):
    assert read_checkout(tmp_path / "versions") == History()
    assert History().head == ""
    assert read_label({}) == History()


def test_unknown_class_counts_as_unsafe():
    assert read_label({LABEL: "1:expand,2:harmless,3"}).revisions[1:] == (
        Revision("2", "unsafe"),
        Revision("3", "unsafe"),
    )


@pytest.mark.parametrize(
    ("revisions", "message"),
    [
        ([("a", None), ("b", "a"), ("c", "a")], "several heads: b and c both follow a"),
        ([("a", None), ("c", "b")], "c follows b, which does not exist"),
    ],
)
def test_branched_history_is_rejected(tmp_path: Path, revisions, message: str):
    for revision, down in revisions:
        write(tmp_path, revision, down)
    with pytest.raises(UsageError, match=message):
        read_checkout(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("revision = (", "is not valid Python"),
        ("revision = make()", "x.py:1: `revision` must be a plain value"),
        ("down_revision = None", "`revision` must be a plain string"),
        ("revision = 'x'\ndown_revision = ('a', 'b')", "must be linear, without merges"),
        ("revision = 'x'", "must state `Class: expand .* and states none"),
        ('"""Class: nice"""\nrevision = "x"', "not 'nice'"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_checkout(tmp_path)
