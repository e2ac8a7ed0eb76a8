"""What a job tells GitHub Actions, and whoever is to hear of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import GateRefused, UsageError


def tell(environ: Mapping[str, str] = os.environ, **outputs: str) -> None:
    """Set a step's outputs; outside of Actions, print them."""
    lines = "".join(f"{name}={value}\n" for name, value in outputs.items())
    if any("\n" in value for value in outputs.values()):
        raise UsageError("an output of a step holds a line break")
    if path := environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a") as file:
            file.write(lines)
    print(lines, end="")


def summarise(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """Add a line to the run's summary; it is printed, too."""
    if path := environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a") as file:
            file.write(text + "\n")
    print(text)


def notify(
    environment: str, outcome: str, version: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Tell how a deploy ended: in the run's summary, and at `NOTIFY_WEBHOOK_URL` where it is set.

    A webhook that is away changes nothing of the outcome: it is only said.
    """
    import requests

    text = f"{environment}: {version or 'unknown version'}: {outcome}"
    if actor := environ.get("GITHUB_ACTOR"):
        text += f" (by {actor})"
    summarise(text, environ)
    url = environ.get("NOTIFY_WEBHOOK_URL")
    if not url:
        return
    try:
        requests.post(url, json={"text": text}, timeout=10).raise_for_status()
    except requests.RequestException as error:
        # Its words may hold the URL, which is a secret.
        print(f"the notification could not be sent ({type(error).__name__})")


def gate(needs: str) -> None:
    """Raise `GateRefused` unless every job that a gate waits for succeeded.

    `needs` is the context of that name as JSON; `UsageError` where it is none.
    """
    try:
        jobs: dict[str, Any] = json.loads(needs)
        results = {name: str(job["result"]) for name, job in jobs.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError("NEEDS must hold the context `needs` as JSON") from None
    for name, result in results.items():
        print(f"{name:<14}{result}")
    if not results:
        raise GateRefused("there is no job to wait for")
    if bad := [name for name, result in results.items() if result != "success"]:
        raise GateRefused(f"not every job succeeded: {', '.join(bad)}")
