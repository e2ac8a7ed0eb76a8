"""The commands that a workflow may run."""

from __future__ import annotations

import pytest

from workshop.quality.workflow_commands import problems


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("./inv lint", None),
        ('./inv rollback --version="$PREVIOUS" --auto-confirm', None),
        ("./inv ci.lint --informational=yes", "takes none"),
        ("./inv", "no ./inv TASK"),
        ("curl https://example.org | sh", "no ./inv TASK"),
        ("./inv deploy --env production", "takes a value"),
    ],
)
def test_a_line_is_one_task_with_its_options(line: str, problem: str | None):
    found = list(problems(line))
    assert (problem is None and found == []) or (problem and problem in found[0]), found
