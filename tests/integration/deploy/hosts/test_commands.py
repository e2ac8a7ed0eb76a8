"""Commands and files of a host over SSH."""

from __future__ import annotations

from tests.support.contracts.host_commands import *  # noqa: F401,F403
