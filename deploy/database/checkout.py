"""The revisions of a checkout, read without running them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from deploy.database.revisions import KINDS, History, Kind, Revision
from deploy.errors import UsageError

_STATED = re.compile(r"^Class:\s*(\S+)", re.MULTILINE)
_LITERALS = frozenset({"revision", "down_revision", "depends_on"})


def read_checkout(versions: Path) -> History:
    """The history in a folder of Alembic revisions. Empty if the folder does not exist.

    Reads literals and docstrings, so that nothing of the service is imported. Raises `UsageError`
    if a file cannot be read or states no class, or if the history branches.
    """
    found: dict[str, tuple[str, Kind]] = {}
    for path in sorted(versions.glob("*.py")):
        module = _parse(path)
        literals = _read_literals(path, module)
        revision = literals.get("revision")
        if not isinstance(revision, str):
            raise UsageError(f"{path}: `revision` must be a plain string")
        down = literals.get("down_revision") or ""
        if not isinstance(down, str) or literals.get("depends_on"):
            raise UsageError(
                f"{path}: the history must be linear, without merges and dependencies",
                hint="base the revision on the head: `flask db heads` names it",
            )
        if down in found:
            raise UsageError(
                f"{versions} has several heads: {found[down][0]} and {revision} both follow "
                f"{down or 'nothing'}",
                hint="base the later one on the other",
            )
        found[down] = (revision, _stated(path, module))
    return History(tuple(_line_up(versions, found)))


def _line_up(versions: Path, found: Mapping[str, tuple[str, Kind]]) -> Iterable[Revision]:
    at, left = "", dict(found)
    while at in left:
        at, kind = left.pop(at)
        yield Revision(at, kind)
    if left:
        down, (revision, _) = next(iter(left.items()))
        raise UsageError(f"{versions}: {revision} follows {down}, which does not exist")


def _stated(path: Path, module: ast.Module) -> Kind:
    stated = _STATED.search(ast.get_docstring(module) or "")
    if stated is None or stated[1] not in KINDS:
        said = f"not {stated[1]!r}" if stated else "and states none"
        raise UsageError(
            f"{path}: its docstring must state `Class: {' | '.join(KINDS)}`, {said}",
            hint="`invoke db.lint` shows the right class; docs/migrations.md explains the classes",
        )
    return cast(Kind, stated[1])


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid Python: {error}") from None


def _read_literals(path: Path, module: ast.Module) -> dict[str, object]:
    found: dict[str, object] = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _LITERALS:
                try:
                    found[target.id] = ast.literal_eval(value)
                except ValueError:
                    what = f"{path}:{statement.lineno}: `{target.id}` must be a plain value"
                    raise UsageError(what) from None
    return found
