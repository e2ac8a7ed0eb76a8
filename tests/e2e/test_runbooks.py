"""Run the commands of the runbooks (blocks under `<!-- run: ... -->`) on practice hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from deploy.machine.checkout import ROOT
from tests.support.guide import commands

from .operator import Operator
from .trial import invoke


def blocks(kind: str) -> Iterator[tuple[str, list[str]]]:
    """The words of each command in the blocks of a kind, with the name of its runbook."""
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        for words in commands(path, kind):
            yield path.name, words


def run_all(operator: Operator, kind: str) -> None:
    """Run every block of a kind on the fleet in place of production."""
    lines = list(blocks(kind))
    assert lines
    wrong = []
    for name, (program, *words) in lines:
        assert program == "./inv"
        here = [word.replace("--env=production", f"--env={operator.name}") for word in words]
        done = invoke(*here)
        if done.status:
            wrong.append(f"{name}: {' '.join(words)} ended with {done.status}: {done.text}")
    assert not wrong, "\n".join(wrong)


def test_every_block_is_of_a_known_kind() -> None:
    kinds = {
        kind
        for path in (ROOT / "docs/runbooks").glob("*.md")
        for kind in re.findall(r"<!-- run: (.*?) -->", path.read_text())
    }
    assert kinds == {"read", "deploy", "rollback"}


@pytest.mark.timeout(600)
def test_the_commands_of_the_runbooks_succeed(operator: Operator) -> None:
    operator.fleet.up(3, web=[1], workers=[1])
    operator.deploy("1.0.0")
    run_all(operator, "deploy")
    assert set(operator.versions().values()) == {"2.0.0"}
    run_all(operator, "read")
    run_all(operator, "rollback")
    assert set(operator.versions().values()) == {"1.0.0"}
