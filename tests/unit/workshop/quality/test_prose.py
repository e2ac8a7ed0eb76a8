"""The word check: the texts that it reads, the rules, the rates and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from workshop.quality import prose
from workshop.quality.prose import ProseReport, Source, WordMatch, check, main


def found(path: str, content: str) -> list[tuple[str, int]]:
    return [(each.rule.name, each.line) for each in check([Source(path, content)]).findings]


def rules(sentence: str) -> list[str]:
    return [name for name, _ in found("docs/page.md", sentence)]


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("Returns None where there is no host.", "where"),
        ("Where none is live, it fails.", "where"),
        ("The number of hosts, where it was given.", "where"),
        ("What the journal holds is kept.", "what-opening"),
        ("A line. What's left is `x`, removed.", "what-opening"),
        ("Then nobody can sign in.", "nobody"),
        ("Whoever deploys holds the lock.", "nobody"),
        ("No one waits.", "nobody"),
        ("The labels tell of it.", "tell-of"),
        ("The run is told\nof it.", "tell-of"),
        ("Traffic goes back at once.", "go-back"),
        ("The way back is open.", "go-back"),
        ("The release before serves.", "release-before"),
        ("While Redis is away, requests fail.", "away"),
        ("Pay-outs wait.", "payout"),
        ("A pay-in is booked.", "deposit"),
        ("One container stands by.", "stand-by"),
        ("It gives the lock back.", "give-back"),
        ("The step is taken back.", "take-back"),
        ("It raises with HAProxy's own words.", "word"),
        ("The surroundings of a test.", "surroundings"),
        ("A fleet member stops.", "practice-host"),
    ],
)
def test_a_forbidden_word_is_reported(sentence: str, rule: str) -> None:
    assert rules(sentence) == [rule]


@pytest.mark.parametrize(
    "sentence",
    [
        "The host where backups are made.",
        "The place where it runs.",
        "The place\n    where it runs.",
        "Shows from where it was called.",
        "The secret file, where the value comes from.",
        "The statement has a WHERE clause.",
        "State what happened, where and when.",
        "Where to look: the journal.",
        "What does a deploy change? The slot.",
        "Each line says what it does.",
        "A no one-time code.",
        "They tell the release.",
        "The release before 1.0 is removed.",
        "The payout is sent.",
        "The back of the queue.",
        "A standby runs by default.",
        "It went away.",
    ],
)
def test_correct_english_is_accepted(sentence: str) -> None:
    assert rules(sentence) == []


def test_code_in_markdown_is_left_out_and_lines_are_kept() -> None:
    page = """\
# Title

```bash
# nobody
```

Run `nobody` or ``some `whoever` ``, see [it](nobody.md).
<!-- nobody -->

    Somebody waits.
"""
    assert found("docs/page.md", page) == [("nobody", 10)]


def test_docstrings_comments_and_messages_of_python_are_read() -> None:
    module = '''\
"""A module.

Nobody reads it.
"""

LIMIT = 1  # nobody
"""Used if nobody sets it, as a note."""


def run(name):
    # The comment tells
    # of two lines.
    raise ValueError(
        f"cannot run {name} while "
        "it is away, try again"
    )
'''
    assert found("deploy/module.py", module) == [
        ("nobody", 3),
        ("nobody", 6),
        ("nobody", 7),
        ("tell-of", 11),
        ("away", 15),
    ]


@pytest.mark.parametrize(
    "line",
    [
        'NAME = "nobody"',
        'USER = "run as nobody"',
        "DATA = b'this is for nobody here'",
        'QUERY = "SELECT id FROM users where name = 1"',
        'TEXT = "the user `nobody` runs this"',
        'TEXT = f"the user {nobody} runs this now"',
        "x = 1  # noqa: nobody",
        "nobody = somebody",
    ],
)
def test_names_data_and_queries_are_no_messages(line: str) -> None:
    assert found("deploy/module.py", line + "\n") == []


def test_literals_of_tests_are_data_but_docstrings_are_read() -> None:
    module = '''\
"""Tests for nobody."""


def test_it():
    """Nobody here."""
    assert "a message for nobody at all"  # whoever
'''
    assert found("tests/test_it.py", module) == [("nobody", 1), ("nobody", 5), ("nobody", 6)]


def test_comments_of_yaml_are_read_and_values_are_not() -> None:
    config = """\
# For nobody.
name: nobody
url: "https://example.org/#nobody"
run: |
  true # whoever
"""
    assert found("config/one.yml", config) == [("nobody", 1), ("nobody", 5)]


def test_short_docstrings_of_public_definitions_are_reported() -> None:
    module = '''\
class Slot:
    """A slot of a host."""

    def drain(self):
        """Drain it."""

    def boot(self):
        """Start the container and wait until it is healthy."""

    def close(self):
        return None

    def __len__(self):
        """The length."""

    def _stop(self):
        """Stop it."""


class Blue(Slot):
    """The slot that has the color blue."""

    def drain(self):
        """As `Slot`."""


class _Hidden:
    """Hidden."""


@task(name="up")
def fleet_up(context):
    """Start the fleet."""
'''
    assert found("deploy/module.py", module) == [("short-docstring", 2), ("short-docstring", 5)]
    assert found("tests/module.py", module) == []


def test_long_and_unclear_names_of_tests_are_reported() -> None:
    long = "test_" + "a" * 76
    names = [long, long[:-1], "test_nobody_waits", "test_it_shows_where", "test_whatever", "what_x"]
    module = "class TestIt:\n" + "".join(f"    def {name}(self): ...\n" for name in names)
    assert found("tests/test_it.py", module) == [
        ("test-name", 2),
        ("test-name", 4),
        ("test-name", 5),
    ]
    assert found("deploy/module.py", module) == []


def test_a_heuristic_rule_fails_above_its_rate_only() -> None:
    page = "It is None where it fails. " + "word " * 3400
    below = check([Source("docs/page.md", page)])
    assert [each.rule.name for each in below.findings] == ["where"]
    assert below.failures == []

    above = check([Source("docs/page.md", page + " It is None where it fails." * 2)])
    assert len(above.failures) == 3


def test_rates_of_docs_and_code_are_separate() -> None:
    page = Source("docs/page.md", "It is None where it fails. " + "word " * 3400)
    module = Source("deploy/module.py", "# It is None where it fails.\n")
    assert [each.path for each in check([page, module]).failures] == ["deploy/module.py"]


def test_files_that_quote_forbidden_words_are_left_out() -> None:
    assert check([Source("docs/glossary.md", "Nobody.")]).findings == []
    assert all((prose.ROOT / path).is_file() for path in prose.QUOTING)


def test_a_finding_names_its_place_and_the_replacement() -> None:
    (finding,) = check([Source("docs/page.md", "\nRedis is away.")]).findings
    assert isinstance(finding, WordMatch)
    assert str(finding) == 'docs/page.md:2: away: “Redis is away.” — write "is unreachable"'


def test_a_report_without_words_has_no_failures() -> None:
    report = check([])
    assert isinstance(report, ProseReport)
    assert report.failures == []
    assert {rate.per_thousand for rate in report.rates} == {0.0}


def test_the_command_lists_failures_and_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("Nobody waits.\n")
    (tmp_path / "data.json").write_text("nobody")
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path}/page.md:1: nobody: “Nobody waits.”")
    assert lines[1].endswith("allowed 0: FAILED")


def test_the_command_succeeds_without_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("All wait.\n")
    assert main([str(tmp_path / "page.md")]) == 0
    assert capsys.readouterr().out == ""


def test_the_command_counts_rules_per_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("Nobody waits for nobody.\n")
    assert main(["--counts", str(tmp_path)]) == 0
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("nobody"))
    assert row.split() == ["nobody", "2", "2"]


def test_the_command_refuses_a_path_that_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.md")]) == 2
    assert "absent.md does not exist" in capsys.readouterr().err


def test_the_command_refuses_python_that_does_not_parse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module.py").write_text("def run(:\n")
    assert main([str(tmp_path)]) == 2
    assert "module.py, line 1" in capsys.readouterr().err


def test_the_whole_repository_is_read_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--all"]) in {0, 1}
    assert " per 1,000 words, allowed " in capsys.readouterr().out
