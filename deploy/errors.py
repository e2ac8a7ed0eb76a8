"""The expected failures, each with its exit code and a hint for the operator.

Exit codes: 0 done or nothing to do · 2 wrong usage or configuration · 3 a gate refused · 4 locked
by another run · 5 the release failed and was reverted · 6 the revert failed too · 7 a host is
unreachable.
"""

from __future__ import annotations


class DeployError(Exception):
    """The base of every expected failure.

    `message` describes the failure and its place, `hint` the remedy. Both are printed; a traceback
    never is.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", host: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.host = host


class UsageError(DeployError):
    """Wrong arguments, configuration or environment; nothing was changed."""

    exit_code = 2


class GateRefused(DeployError):
    """A condition for the plan does not hold; nothing was changed."""

    exit_code = 3


class Locked(DeployError):
    """Another run holds the lock of this environment."""

    exit_code = 4


class ReleaseFailed(DeployError):
    """A step failed; the applied steps were reverted, and traffic is on the previous release."""

    exit_code = 5


class RevertFailed(DeployError):
    """A step failed and so did its revert: the operator must act."""

    exit_code = 6


class HostUnreachable(DeployError):
    """A host does not answer, or stopped answering; it was left unchanged."""

    exit_code = 7


class HostKeyMismatch(HostUnreachable):
    """A host has another key than the pinned one; nothing was sent to it."""


class CommandFailed(DeployError):
    """A command on a host ended with an exit status other than 0.

    Carries the argv, the status and the whole output; the message holds its last ten lines.
    """

    def __init__(self, host: str, argv: tuple[str, ...], status: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-10:])
        super().__init__(f"{host}: {argv[0]} ended with status {status}:\n{tail}", host=host)
        self.argv = argv
        self.status = status
        self.output = output


class EngineError(DeployError):
    """The Docker Engine of a host refused a request; `status` is the HTTP status (0: none)."""

    def __init__(
        self, message: str, *, hint: str = "", host: str | None = None, status: int = 0
    ) -> None:
        super().__init__(message, hint=hint, host=host)
        self.status = status
