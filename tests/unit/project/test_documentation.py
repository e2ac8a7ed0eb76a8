"""Links and anchors of all documents resolve, and commands in runbooks exist."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from deploy.machine.checkout import ROOT
from tasks import namespace

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)
    plain = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_quoted_backup_messages_exist_in_the_code():
    _, _, rest = (ROOT / "docs" / "backups.md").read_text().partition("## Troubleshooting")
    rows = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    messages = [text for row in rows for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    foreign = ("age ended with", "No space left on device", "canceling statement")
    assert len(messages) > 15
    missing = [
        message
        for message in messages
        if not message.startswith(foreign)
        and not all(fragment in _deployer_text() for fragment in _fragments(message))
    ]
    assert missing == []


def _fragments(message: str) -> list[str]:
    """The parts of a quoted message between its placeholders in capitals, such as HOST."""
    return [
        part.strip(" ,:") for part in re.split(r"\b[A-Z]+\b(?!-|[a-z])", message) if part.strip()
    ]


@functools.cache
def _deployer_text() -> str:
    """The source of the deployer with adjacent string literals joined, and values left out."""
    source = "\n".join(path.read_text() for path in (ROOT / "deploy").rglob("*.py"))
    return re.sub(r"\{[^{}]*\}", "", re.sub(r"\"\s*\n\s*f?\"", "", source))


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_runbook_commands_use_existing_tasks_and_options(page):
    used = re.findall(r"\./inv ([a-z][\w.-]*)((?: --[a-z][\w-]*(?:=[^\s`]+)?)*)", page.read_text())
    assert used
    for name, options in used:
        known = {argument.name for argument in namespace[name].get_arguments()}
        given = {each.replace("-", "_") for each in re.findall(r" --([a-z][\w-]*)", options)}
        assert given <= known, name
