"""Rehearsals: make a release slow or faulty on purpose, to test the deployer.

Active only if `PRACTICE=true`, which is refused in production.
"""

from __future__ import annotations

from time import sleep

from flask import Flask, abort, request

from amani_app.settings import Settings

LONGEST_DELAY = 10_000
"""The largest `ping?delay_ms=` in milliseconds."""


def install_practice(app: Flask, settings: Settings) -> None:
    """Register the faults that `settings` enable."""
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
    """Exit when the web process starts, if the fault is `exit`."""
    if settings.fault == "exit":
        raise SystemExit("practice fault: exit")


def fail_to_migrate(settings: Settings) -> None:
    """Exit before the first statement of a migration, if the fault is `migration`."""
    if settings.fault == "migration":
        raise SystemExit("practice fault: migration")
