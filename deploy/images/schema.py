"""The schema that a checkout's code expects, read from its migrations without running them."""

from __future__ import annotations

import ast
from pathlib import Path

from deploy.errors import UsageError


def read_head(versions: Path) -> str:
    """The revision that no other one follows; empty where there are no migrations.

    Reads `revision` and `down_revision` as literals, so that nothing of the service is imported.
    Raises `UsageError` where there are several heads or a file cannot be read.
    """
    revisions: dict[str, Path] = {}
    followed: set[object] = set()
    for path in sorted(versions.glob("*.py")):
        found = _literals(path)
        if not isinstance(found.get("revision"), str):
            raise UsageError(f"{path}: `revision` must be a plain string")
        revisions[str(found["revision"])] = path
        for key in ("down_revision", "depends_on"):
            named = found.get(key)
            followed.update(named if isinstance(named, (tuple, list)) else [named])
    heads = sorted(revisions.keys() - followed)
    if len(heads) > 1:
        hint = "`flask db merge` makes one of them"
        raise UsageError(f"{versions} has several heads: {', '.join(heads)}", hint=hint)
    return heads[0] if heads else ""


def _literals(path: Path) -> dict[str, object]:
    try:
        module = ast.parse(path.read_text(), str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no Python: {error}") from None
    found: dict[str, object] = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _NAMES:
                try:
                    found[target.id] = ast.literal_eval(value)
                except ValueError:
                    what = f"{path}:{statement.lineno}: `{target.id}` must be a plain value"
                    raise UsageError(what) from None
    return found


_NAMES = frozenset({"revision", "down_revision", "depends_on"})
