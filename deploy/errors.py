"""What can go wrong, each with the exit code that scripts rely on and a hint for who reads it.

Exit codes: 0 done or nothing to do · 2 wrong usage or configuration · 3 a gate refused · 4 locked
by someone else · 5 the release failed and was reverted · 6 the revert failed too · 7 a host could
not be reached.
"""

from __future__ import annotations


class DeployError(Exception):
    """The base of every foreseeable failure.

    `message` says what and where, `hint` says what to do; both are printed, a traceback never is.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", host: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.host = host


class UsageError(DeployError):
    """Wrong arguments, configuration or surroundings; nothing was changed."""

    exit_code = 2


class GateRefused(DeployError):
    """A condition that must hold before the plan may go on does not hold; nothing was changed."""

    exit_code = 3


class Locked(DeployError):
    """Someone else is changing this environment."""

    exit_code = 4


class ReleaseFailed(DeployError):
    """A step failed; what was applied has been reverted and traffic is on the old release."""

    exit_code = 5


class RevertFailed(DeployError):
    """A step failed and so did its revert: a person is needed."""

    exit_code = 6


class HostUnreachable(DeployError):
    """A host did not answer, or stopped answering; what it serves was left as it is."""

    exit_code = 7


class HostKeyMismatch(HostUnreachable):
    """A host showed another key than the one pinned for it; nothing was sent to it."""


class CommandFailed(DeployError):
    """A command on a host ended with another exit status than 0.

    Carries the argv, the status and the last lines of what it printed.
    """

    def __init__(self, host: str, argv: tuple[str, ...], status: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-10:])
        super().__init__(f"{host}: {argv[0]} ended with status {status}:\n{tail}", host=host)
        self.argv = argv
        self.status = status
        self.output = output


class EngineError(DeployError):
    """The Docker Engine of a host refused a request; `status` is its HTTP status (0: none)."""

    def __init__(
        self, message: str, *, hint: str = "", host: str | None = None, status: int = 0
    ) -> None:
        super().__init__(message, hint=hint, host=host)
        self.status = status
