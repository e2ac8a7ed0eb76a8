"""The README matches the tasks and files of the repository."""

from __future__ import annotations

import re

from deploy.machine.checkout import ROOT
from tasks import namespace

README = (ROOT / "README.md").read_text()


def test_task_table_lists_exactly_the_tasks():
    table = README.partition("## Tasks")[2].partition("\n## ")[0]
    first_column = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert sorted(re.findall(r"`(.+?)`", first_column)) == sorted(namespace.task_names)


def test_examples_use_existing_tasks_and_options():
    examples = re.findall(r"^\./inv (\S+)([^#\n]*)", README, re.MULTILINE)
    assert len(examples) >= 7
    for name, options in examples:
        known = {argument.name for argument in namespace[name].get_arguments()}
        used = {option.replace("-", "_") for option in re.findall(r"--([a-z-]+)", options)}
        assert used <= known, name


def test_links_resolve():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
