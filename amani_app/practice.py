"""Rehearsal: make a release slow or broken on purpose, to see the deployer cope.

Nothing here acts unless ``PRACTICE=true``, which production refuses.
"""

from __future__ import annotations

from time import sleep

from flask import Flask, abort, request

from amani_app.settings import Settings

LONGEST_DELAY = 10_000
"""Milliseconds ``ping?delay_ms=`` may ask for."""


def install_practice(app: Flask, settings: Settings) -> None:
    """Register the switches that *settings* name."""
    if not settings.practice:
        return

    @app.before_request
    def _slow_ping() -> None:
        if request.endpoint == "api.ping" and (delay := request.args.get("delay_ms", type=int)):
            sleep(min(max(delay, 0), LONGEST_DELAY) / 1000)

    @app.before_request
    def _fail() -> None:
        if settings.fault == "unhealthy" and request.endpoint == "api.readiness":
            abort(503, "practice fault: unhealthy")
        if settings.fault == "smoke" and request.endpoint != "api.readiness":
            abort(500, "practice fault: smoke")


def fail_to_serve(settings: Settings) -> None:
    """End the web process at its start when the ``exit`` fault is rehearsed."""
    if settings.fault == "exit":
        raise SystemExit("practice fault: exit")


def fail_to_migrate(settings: Settings) -> None:
    """End a migration before its first statement when the ``migration`` fault is rehearsed."""
    if settings.fault == "migration":
        raise SystemExit("practice fault: migration")
