"""Check `run:` lines of workflows: each must be one task of this checkout with valid options."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator

PROGRAM = "./inv"


def problems(line: str) -> Iterator[str]:
    """The findings in a `run:` line; at most one for its form, else one for each option."""
    if "${{" in line:
        yield f"an expression inside `run: {line.strip()}`; pass it by env"
        return
    if "\n" in line.strip():
        yield f"more than one line: {line.strip().splitlines()[0]} ..."
        return
    words = shlex.split(line)
    if words[:1] != [PROGRAM] or len(words) < 2:
        yield f"`{line.strip()}` is no ./inv TASK"
        return
    yield from _of_task(words[1], words[2:])


def _of_task(name: str, words: list[str]) -> Iterator[str]:
    # The entry point knows all tasks; a module of the workshop cannot import the surface above it.
    namespace = importlib.import_module("tasks").namespace
    if name not in namespace.task_names:
        yield f"there is no task {name}"
        return
    options: dict[str, bool] = {}
    for argument in namespace[name].get_arguments():
        for spelling in argument.names:
            options["--" + spelling.replace("_", "-")] = argument.takes_value
    for word in words:
        option, equals, _ = word.partition("=")
        if option not in options:
            yield f"{name} has no option {option}"
        elif options[option] != bool(equals):
            yield f"{name}: {option} {'takes a value' if options[option] else 'takes none'}"
