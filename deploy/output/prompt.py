"""Questions to the operator."""

from __future__ import annotations

import sys
from typing import TextIO

from deploy.errors import UsageError


def confirm(
    question: str,
    expected: str,
    *,
    automatic: bool = False,
    option: str = "--auto-confirm",
    stdin: TextIO | None = None,
) -> None:
    """Ask a question on standard error; return if the operator types `expected`.

    With `automatic`, which `option` sets on the command line, return without a question. Raises
    `UsageError` if standard input is not a terminal, or on another answer.
    """
    if automatic:
        return
    stdin = sys.stdin if stdin is None else stdin
    if not stdin.isatty():
        raise UsageError(
            f"{question}\ncannot ask for confirmation: standard input is not a terminal",
            hint=f"{option} confirms without a question",
        )
    print(f"{question}\nType {expected} to confirm: ", end="", file=sys.stderr, flush=True)
    if stdin.readline().strip() != expected:
        raise UsageError("not confirmed; nothing was changed")
