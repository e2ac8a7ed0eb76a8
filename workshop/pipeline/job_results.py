"""The results of the CI jobs that a job depends on."""

from __future__ import annotations

import json
from typing import Any

from deploy.errors import GateRefused, UsageError


def require_success(needs: str) -> None:
    """Raise `GateRefused` unless there are jobs in `needs` and all of them succeeded.

    `needs` is GitHub's context of that name as JSON. Raises `UsageError` if it is malformed.
    """
    try:
        jobs: dict[str, Any] = json.loads(needs)
        results = {name: str(job["result"]) for name, job in jobs.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError("NEEDS must hold the context `needs` as JSON") from None
    for name, result in results.items():
        print(f"{name:<14}{result}")
    if not results:
        raise GateRefused("NEEDS names no job")
    if failed := [name for name, result in results.items() if result != "success"]:
        raise GateRefused(f"not every job succeeded: {', '.join(failed)}")
