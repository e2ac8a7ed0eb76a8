"""Options that several tasks share, with their help texts."""

from __future__ import annotations

import os
import sys

ENV = {"env": "environment, such as staging (default: AMANI_ENV, or production)"}
REQUIRED_ENV = {"env": "environment, such as local, staging or production (required)"}
HOSTS = {"hosts": "names or patterns of hosts, separated by commas (default: all)"}
JSON = {"json": "print JSON lines"}
DRY_RUN = {"dry_run": "print the plan and change nothing"}
AUTO_CONFIRM = {"auto_confirm": "do not ask for confirmation"}


def default_environment() -> str:
    """Return `AMANI_ENV`, or `production` if it is not set."""
    return os.environ.get("AMANI_ENV") or "production"


def split_list(text: str) -> tuple[str, ...]:
    """Return the parts of a list that is separated by commas, without spaces or empty parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def words_after_separator() -> list[str]:
    """Return the words after `--` on the command line, which Invoke 2 passes to no task."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
