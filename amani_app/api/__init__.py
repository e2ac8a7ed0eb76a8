"""The HTTP API under ``/api/v1``."""

from __future__ import annotations

from flask import Blueprint, Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from amani_app.api import system
from amani_app.api.operations import register_operation
from amani_app.api.problems import register_problems
from amani_app.api.routes import OPERATIONS
from amani_app.api.telemetry import register_telemetry
from amani_app.container import container


def register_api(app: Flask) -> None:
    """Give *app* its routes, its error answers and its telemetry."""
    if hops := container(app).settings.proxy_hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
        )
    register_telemetry(app)
    register_problems(app)
    escrow = Blueprint("amani", __name__)
    for operation, handler in OPERATIONS:
        register_operation(escrow, operation, handler)
    app.register_blueprint(escrow, url_prefix="/api/v1")
    app.register_blueprint(system.blueprint, url_prefix="/api/v1")
    app.add_url_rule("/metrics", "metrics", system.metrics)
