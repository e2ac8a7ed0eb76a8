"""A name means one thing: imports keep it, and no two classes share it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest

from deploy.machine.checkout import ROOT

PACKAGES = ("amani_app", "deploy", "workshop")
ADAPTERS: dict[str, str] = {}
"""The port that each shared class name implements. An entry permits classes of one name, if all of
them are adapters of this port."""


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the path, relative to the root, and the syntax tree of each module."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            yield name, ast.parse(path.read_text(encoding="utf-8"), name)


def renamed_imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield a line for each import that gives one of this repository's names another name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            ours = node.level > 0 or (node.module or "").partition(".")[0] in PACKAGES
            source = "." * node.level + (node.module or "") + ": "
        elif isinstance(node, ast.Import):
            ours, source = None, ""
        else:
            continue
        for alias in node.names:
            if ours is None and alias.name.partition(".")[0] not in PACKAGES:
                continue
            if ours is not False and alias.asname not in (None, alias.name):
                yield f"{name}:{node.lineno}: {source}{alias.name} as {alias.asname}"


def shared_class_names(trees: Iterator[tuple[str, ast.Module]]) -> list[str]:
    """Return a line for each class name that several classes have, with their places."""
    places = defaultdict(list)
    for name, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{name}:{node.lineno}")
    return [
        f"{name}: {', '.join(found)}"
        for name, found in sorted(places.items())
        if len(found) > 1 and name not in ADAPTERS
    ]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from deploy.operations.deploy import deploy_release", False),
        ("from deploy.operations.deploy import deploy_release as bring", True),
        ("def task():\n    from deploy.operations.deploy import deploy_release as bring", True),
        ("from . import session as sessions", True),
        ("import workshop.bench.load as bench", True),
        ("from amani_app.ports import store as store", False),
        ("import numpy as np", False),
        ("from secrets import token_hex as token", False),
    ],
)
def test_only_another_name_for_our_own_is_a_renamed_import(code: str, found: bool):
    assert bool(list(renamed_imports("here.py", ast.parse(code)))) is found


def test_a_class_name_that_two_modules_define_is_listed_with_both():
    trees = [("a.py", ast.parse("class Plan: ...")), ("b.py", ast.parse("\nclass Plan: ..."))]
    assert shared_class_names(iter(trees)) == ["Plan: a.py:1, b.py:2"]


def test_no_module_of_the_deployer_or_the_workshop_renames_an_import_of_ours():
    offenders = [
        line for name, tree in modules("deploy", "workshop") for line in renamed_imports(name, tree)
    ]
    assert not offenders, "import these under their own names:\n" + "\n".join(offenders)


def test_every_class_name_is_unique_except_for_adapters_of_one_port():
    offenders = shared_class_names(modules(*PACKAGES))
    assert not offenders, "rename all but one of each:\n" + "\n".join(offenders)
