"""Turn typed functions into Invoke tasks: convert options, print errors, set exit codes."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from deploy.errors import DeployError, UsageError

INTERRUPTED = 130
"""Exit code after Ctrl-C, the same as in shells: 128 + SIGINT."""


def task(
    *,
    help: Mapping[str, str] | None = None,  # noqa: A002 - Invoke's own name
    name: str | None = None,
    positional: Sequence[str] = (),
    iterable: Sequence[str] = (),
    incrementable: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Task[Any]]:
    """Turn a function into a task; its first parameter is Invoke's context.

    Converts options annotated `int` or `float`, optional or not; a value that is not a number is
    wrong usage. A `DeployError` ends the task with its message, hint and exit code. Another
    exception is a defect and keeps its traceback.
    """

    def decorate(function: Callable[..., Any]) -> Task[Any]:
        return Task(
            _guard(function),
            name=name,
            help=dict(help or {}),
            positional=tuple(positional),
            iterable=list(iterable),
            incrementable=list(incrementable),
            # With short flags that Invoke generates, a typo can become an option.
            auto_shortflags=False,
        )

    return decorate


def _guard(function: Callable[..., Any]) -> Callable[..., None]:
    signature = inspect.signature(function)
    converters = _converters(function, signature)

    @functools.wraps(function)
    def guarded(context: Context, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(context, *args, **kwargs)
            for parameter, convert in converters.items():
                if parameter in bound.arguments:
                    bound.arguments[parameter] = convert(bound.arguments[parameter])
            function(*bound.args, **bound.kwargs)
        except DeployError as error:
            _print_error(error)
            raise Exit(code=error.exit_code) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise Exit(code=INTERRUPTED) from None

    # Invoke takes the type of an option from its default. With an int as the default, a wrong
    # value ends in a traceback.
    guarded.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            parameter.replace(default=None) if parameter.name in converters else parameter
            for parameter in signature.parameters.values()
        ]
    )
    return guarded


def _converters(
    function: Callable[..., Any], signature: inspect.Signature
) -> dict[str, Callable[[str | None], Any]]:
    hints = typing.get_type_hints(function)
    found: dict[str, Callable[[str | None], Any]] = {}
    for name, parameter in signature.parameters.items():
        kinds = {hints.get(name), *typing.get_args(hints.get(name))}
        for kind in (int, float):
            if kind in kinds and parameter.default is not parameter.empty:
                found[name] = functools.partial(_convert, name, kind, parameter.default)
    return found


def _convert(name: str, kind: type[int] | type[float], default: Any, value: str | None) -> Any:
    if value is None:
        return default
    try:
        return kind(value)
    except ValueError:
        option = "--" + name.replace("_", "-")
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{option} takes {what}, not {value!r}") from None


def _print_error(error: DeployError) -> None:
    print(f"error: {error.message}", file=sys.stderr)
    for line in error.hint.splitlines():
        print(f"  {line}", file=sys.stderr)
