"""The reference of all keys of an environment file, generated from the model."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deploy.environment import model, sections
from deploy.environment.model import Environment
from deploy.machine.checkout import ROOT

PAGE = ROOT / "docs" / "environments.md"
_BEGIN = "<!-- The text from here on is made by `./inv env.reference`. -->\n"


def update(page: Path = PAGE) -> str:
    """The page's text with a new reference."""
    return page.read_text(encoding="utf-8").partition(_BEGIN)[0] + _BEGIN + "\n" + render()


def render() -> str:
    """The reference as Markdown: one table for each section, in the order of the model."""
    return "\n".join(_section(Environment, "Top level", ""))


def list_keys(model: type[BaseModel] = Environment, prefix: str = "") -> Iterator[str]:
    """Every key that holds a value and no section, as the reference names it."""
    for name, field in model.model_fields.items():
        part = _model_within(field.annotation)
        if part is None:
            yield f"{prefix}{name}"
        else:
            yield from list_keys(part, f"{prefix}{name}{_wildcard(field.annotation)}.")


def _section(model: type[BaseModel], title: str, prefix: str) -> Iterator[str]:
    said = _docstrings(model)
    yield f"### {title}\n"
    if prefix:
        yield f"{inspect.getdoc(model)}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    inner = []
    for name, text in said.items():
        field = model.model_fields[name]
        part = _model_within(field.annotation)
        key = f"{prefix}{name}"
        if part is not None:
            inner.append((part, key + _wildcard(field.annotation)))
        kind = _kind(field, part)
        cells = (f"`{key}`", kind, _default(field, kind), " ".join(text.split()))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for part, key in inner:
        yield from _section(part, f"`{key}`", f"{key}.")


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring of each field: those of the class first, then those that it inherits."""
    found: dict[str, str] = {}
    for part in model.__mro__:
        if issubclass(part, BaseModel) and part is not BaseModel:
            found = {**found, **{n: text for n, text in _own(part).items() if n not in found}}
    return found


def _own(model: type[BaseModel]) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(sys.modules[model.__module__]))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == model.__name__)
    return {
        field.target.id: ast.literal_eval(text.value)
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
    }


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


_CONTAINERS: dict[Any, tuple[str, str]] = {
    tuple: ("list of sections", "[]"),
    dict: ("sections by name", ".<name>"),
}


def _wildcard(annotation: Any) -> str:
    return _CONTAINERS.get(get_origin(annotation), ("", ""))[1]


_NAMES: dict[Any, str] = {
    sections.Seconds: "duration",
    sections.WholeSeconds: "duration",
    sections.Bytes: "size",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
}


def _kind(field: FieldInfo, part: type[BaseModel] | None) -> str:
    if part is not None:
        return _CONTAINERS.get(get_origin(field.annotation), ("section", ""))[0]
    names = {repr(validator): name for validator, name in _BY_VALIDATOR.items()}
    for item in field.metadata:
        if repr(item) in names:
            return names[repr(item)]
    return _plain(field.annotation)


def _plain(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in args)
    if origin is tuple:
        return f"list of {_plain(args[0])}"
    if origin is dict:
        return f"{_plain(args[1])} by name"
    if origin in (Union, types.UnionType):
        return _plain(next(kind for kind in args if kind is not type(None)))
    return _NAMES.get(annotation) or _NAMES.get(origin) or _plain(args[0])


_BY_VALIDATOR: dict[Any, str] = {
    get_args(kind)[1]: name
    for kind, name in (
        (sections.Seconds, "duration"),
        (sections.WholeSeconds, "duration"),
        (sections.Bytes, "size"),
        (model.Batch, "whole number or share"),
    )
}


def _default(field: FieldInfo, kind: str) -> str:
    value = field.default
    if field.is_required():
        return "**required**"
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    if isinstance(value, dict):
        pairs = (f"{name}: {said}" if said else f'{name}: ""' for name, said in value.items())
        return f"`{{{', '.join(pairs)}}}`"
    if kind == "size":
        return f"`{value / 1e6:g}MB`" if value < 1e9 else f"`{value / 1e9:g}GB`"
    return f"`{value:g}s`" if kind == "duration" else f"`{value}`"
