"""The journal: truncated lines are skipped, and the copies of the hosts merge."""

from __future__ import annotations

import dataclasses

import pytest

from deploy.hosts.local import LocalHost
from deploy.state import journal
from deploy.state.journal import Record

HOST = LocalHost("here")


def record(id: str, started: float = 1.0, **values: object) -> Record:
    made = Record(
        id=id,
        kind="deploy",
        environment="test",
        hosts=("one", "two"),
        version="1.0.0",
        digest="sha256:0",
        revision="abc",
        outcome="succeeded",
        requested_by="ada",
        started=started,
        finished=started + 1,
        steps=({"host": "one", "step": "boot", "seconds": 0.1},),
    )
    return dataclasses.replace(made, **values)


def read(directory: str) -> tuple[Record, ...]:
    return journal.parse((HOST.read_file(journal.path(directory)) or b"").decode())


def test_appended_records_are_read_in_order(tmp_path):
    folder = str(tmp_path / "not" / "there" / "yet")
    records = (record("a"), record("b", error="three\nlines\n\u2028"))
    for each in records:
        journal.append(HOST, folder, each)
    assert read(folder) == records


def test_journal_is_private_to_its_owner(tmp_path):
    journal.append(HOST, str(tmp_path), record("a"))
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_truncated_line_does_not_affect_others(tmp_path, kept):
    before, torn, after = record("a"), record("b"), record("c")
    journal.append(HOST, str(tmp_path), before)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b"\n" + torn.line()[:kept])
    journal.append(HOST, str(tmp_path), after)
    assert read(str(tmp_path)) == (before, after)


@pytest.mark.parametrize("line", ["", "5", "null", "[1]", '"id"', "{}", '{"id": "a"}', "{"])
def test_invalid_line_is_skipped(line):
    good = record("a")
    assert journal.parse(f"{line}\n{good.line().decode()}\n{line}") == (good,)


def test_unknown_fields_of_a_newer_record_are_ignored():
    text = record("a").line().decode().replace('{"', '{"mood":"calm","', 1)
    assert journal.parse(text) == (record("a"),)


def test_journals_of_hosts_merge_with_each_run_once():
    one = (record("a", 1.0), record("c", 3.0))
    two = (record("a", 1.0), record("b", 2.0))
    assert [each.id for each in journal.merge([one, two])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("outcome", "live"),
    [
        ("succeeded", True),
        ("incomplete", True),
        ("reverted", False),
        ("interrupted", False),
        ("failed", False),
    ],
)
def test_only_a_run_with_serving_release_counts_as_live(outcome, live):
    assert record("a", outcome=outcome).live is live
