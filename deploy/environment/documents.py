"""Typed YAML documents: all errors are reported together, by file, line, column and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from deploy.errors import UsageError

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Problem:
    """An error in a document. `line` and `column` count from 1; 0 means that they are unknown."""

    line: int
    column: int
    key: str
    text: str


@dataclass
class Document:
    """A YAML file as plain values (sequences are tuples), with the position of each value."""

    path: Path
    value: Any = None
    positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, text: str) -> Problem:
        """A problem at the position of `path`, or of its nearest parent in the file."""
        at = next(
            (
                self.positions[path[:n]]
                for n in range(len(path), -1, -1)
                if path[:n] in self.positions
            ),
            (1, 1),
        )
        return Problem(*at, show_key(path), text)

    def refuse(self, *problems: Problem) -> UsageError:
        """An error that reports these problems, in the order of their lines."""
        lines = [
            f"{self.path}:{p.line}:{p.column}: {p.key + ': ' if p.key else ''}{p.text}"
            for p in sorted(problems, key=lambda p: (p.line, p.column))
        ]
        return UsageError("\n".join(lines))


def show_key(path: KeyPath) -> str:
    """A key path as text: `hosts[0].roles`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def suggest(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """` (did you mean "x"?)`, or empty text if no known word is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def read(path: Path) -> Document:
    """Read a YAML file with the position of every value.

    Raises `UsageError` if it cannot be read, is not YAML, or contains a key twice.
    """
    document = Document(path)
    try:
        loader = _LOADER(path.read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            if node is not None:
                document.value = _Builder(loader, document).build(node, (), ())
        finally:
            loader.dispose()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        why = ", ".join(filter(None, (error.context, error.problem)))
        raise document.refuse(Problem(line, column, "", f"not valid YAML: {why}")) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from None
    if document.problems:
        raise document.refuse(*document.problems)
    return document


class _Builder:
    """Converts YAML nodes to plain values, and records positions and duplicate keys."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader = loader
        self._document = document

    def build(self, node: Any, path: KeyPath, parents: tuple[Any, ...]) -> Any:
        self._document.positions.setdefault(path, _place(node))
        if any(node is parent for parent in parents):
            return self._refuse(node, path, "refers to itself")
        if not node.tag.startswith(_TAG) or "/" in node.tag:
            return self._refuse(node, path, f"has an unsupported YAML tag: {node.tag}")
        parents = (*parents, node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, parents)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.build(item, (*path, n), parents) for n, item in enumerate(node.value))
        try:
            return self._loader.construct_object(node)
        except ValueError:
            return self._refuse(node, path, f"{node.value!r} is not valid: put text in quotes")

    def _mapping(self, node: Any, path: KeyPath, parents: tuple[Any, ...]) -> dict[str, Any]:
        seen: dict[Hashable, int] = {}
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == f"{_TAG}merge":
                self._refuse(key_node, path, "a key must be plain text")
                continue
            inner = (*path, key)
            if key in seen:
                self._refuse(key_node, inner, f"is a duplicate key (first in line {seen[key]})")
                continue
            seen[key] = key_node.start_mark.line + 1
            self._document.positions[inner] = _place(key_node)
            result[key] = self.build(value_node, inner, parents)
        return result

    def _refuse(self, node: Any, path: KeyPath, text: str) -> None:
        self._document.problems.append(Problem(*_place(node), show_key(path), text))


def _place(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def parse(model: type[Model], document: Document, **extra: Any) -> Model:
    """Validate a document as a model. `extra` are top-level values that are not in the file.

    Raises `UsageError` that reports every problem with its position.
    """
    value = document.value
    if not isinstance(value, dict):
        raise document.refuse(
            document.problem((), "must be keys with values, such as `domain: api.example.com`")
        )
    try:
        return model.model_validate({**value, **extra})
    except ValidationError as error:
        raise document.refuse(*_problems(model, document, error)) from None


def _problems(
    model: type[BaseModel], document: Document, error: ValidationError
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
        explain = _EXPLAIN.get(detail["type"])
        if detail["type"] == "extra_forbidden":
            fields = _model_at(model, path[:-1]).model_fields
            text = f"unknown key{suggest(str(path[-1]), dict(fields))}; allowed: {_listed(fields)}"
        elif detail["type"] == "missing":
            text = "is missing"
        elif detail["type"] == "value_error":
            text = str(detail["ctx"]["error"]) + _found(path, detail["input"])
        else:
            wanted = explain(detail) if explain else detail["msg"]
            text = wanted + _found(path, detail["input"])
        yield document.problem(path, text)


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        if part in model.model_fields:
            model = _model_within(model.model_fields[str(part)].annotation) or model
    return model


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _listed(words: Any) -> str:
    return ", ".join(sorted(words))


_SHOWN = 60
_PRIVATE = re.compile(r"settings|environment|password|secret|token|key", re.I)


def _found(path: KeyPath, value: Any) -> str:
    """`, found ...` with the value, unless it may be a secret; long values are cut."""
    if isinstance(value, (dict, tuple)):
        return ", found " + ("keys with values" if isinstance(value, dict) else "a list")
    if any(_PRIVATE.search(str(part)) for part in path):
        return ""
    text = "nothing" if value is None else repr(value)
    text = text.lower() if isinstance(value, bool) else text
    return f", found {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


_Detail = Mapping[str, Any]


def _always(text: str) -> Callable[[_Detail], str]:
    return lambda detail: text


def _choice(detail: _Detail) -> str:
    expected = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    near = (
        suggest(detail["input"], expected.split(", ")) if isinstance(detail["input"], str) else ""
    )
    return f"must be one of: {expected}{near}"


_EXPLAIN: dict[str, Callable[[Any], str]] = {
    "string_type": _always("must be text (put it in quotes)"),
    "int_type": _always("must be a whole number"),
    "float_type": _always("must be a number"),
    "bool_type": _always("must be true or false"),
    "tuple_type": _always("must be a list"),
    "dict_type": _always("must be keys with values"),
    "model_type": _always("must be keys with values"),
    "literal_error": _choice,
    "greater_than": lambda detail: f"must be more than {detail['ctx']['gt']}",
    "greater_than_equal": lambda detail: f"must be at least {detail['ctx']['ge']}",
    "less_than_equal": lambda detail: f"must be at most {detail['ctx']['le']}",
}
