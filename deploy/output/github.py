"""Step outputs, run summaries and notifications from GitHub Actions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import UsageError


def set_outputs(environ: Mapping[str, str] = os.environ, **outputs: str) -> None:
    """Print outputs and, in GitHub Actions, set them as outputs of the step.

    Raises `UsageError` if a value contains a line break.
    """
    lines = "".join(f"{name}={value}\n" for name, value in outputs.items())
    if any("\n" in value for value in outputs.values()):
        raise UsageError("a step output must not contain a line break")
    if path := environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a") as file:
            file.write(lines)
    print(lines, end="")


def add_summary(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """Print a line and, in GitHub Actions, add it to the run summary."""
    if path := environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a") as file:
            file.write(text + "\n")
    print(text)


def send_notification(
    environment: str, outcome: str, version: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Add the outcome of a deploy to the run summary, and post it to `NOTIFY_WEBHOOK_URL` if set.

    A request that fails does not raise; a line is printed instead.
    """
    import requests

    text = f"{environment}: {version or 'unknown version'}: {outcome}"
    if actor := environ.get("GITHUB_ACTOR"):
        text += f" (by {actor})"
    add_summary(text, environ)
    url = environ.get("NOTIFY_WEBHOOK_URL")
    if not url:
        return
    try:
        requests.post(url, json={"text": text}, timeout=10).raise_for_status()
    except requests.RequestException as error:
        # The text of the error may contain the URL, which is a secret.
        print(f"the notification could not be sent ({type(error).__name__})")
