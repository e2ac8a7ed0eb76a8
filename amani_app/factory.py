"""Builds the Flask application."""

from __future__ import annotations

import os

from flask import Flask

from amani_app.api import register_api
from amani_app.api.application import Application
from amani_app.build_info import load_build_info
from amani_app.container import install_container
from amani_app.telemetry.logs import configure_logging
from amani_app.telemetry.observability import require_extras
from amani_app.practice import install_practice
from amani_app.settings import Settings, load_settings, signing_key

LARGEST_BODY = 64 * 1024
"""The largest request body in bytes; every valid body is far smaller."""


def build_app(settings: Settings | None = None) -> Flask:
    settings = settings or load_settings()
    require_extras(settings)
    configure_logging(settings.log_level, settings.log_format)
    key = signing_key(settings)
    app = Application("amani_app", static_folder=None)
    app.config.update(
        SECRET_KEY=key,
        SECRET_KEY_FALLBACKS=list(settings.previous_keys),
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        MAX_FORM_PARTS=10,
    )
    parts = install_container(app, settings, load_build_info(), key)
    register_api(app)
    install_practice(app, settings)
    if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        # Importing Alembic is a fifth of the boot; a web process does not need it.
        from amani_app.commands import install_commands

        install_commands(app)
    else:
        _ = parts.schema.expected  # broken migrations must stop the boot, not fail a probe later
    parts.lifecycle.start()
    return app
