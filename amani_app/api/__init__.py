"""The HTTP API under `/api/v1`."""

from __future__ import annotations

from flask import Blueprint, Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from amani_app.api import reference, system
from amani_app.api.limits import Kind, Limits, register_limits
from amani_app.api.operations import register_operation
from amani_app.api.origins import register_origins
from amani_app.api.problems import register_problems
from amani_app.api.routes import OPERATIONS
from amani_app.telemetry.requests import register_telemetry
from amani_app.container import container
from amani_app.settings import Settings


def register_api(app: Flask) -> None:
    """Register the routes, the error handlers and the telemetry on `app`."""
    if hops := container(app).settings.proxy_hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
        )
    parts = container(app)
    register_origins(app, parts.settings.origins)
    register_limits(app)
    app.extensions["amani-limits"] = Limits(
        parts.limiter, parts.fallback_limiter, _amounts(parts.settings)
    )
    register_telemetry(app, hsts=parts.settings.environment == "production")
    register_problems(app)
    escrow = Blueprint("amani", __name__)
    for operation, handler in OPERATIONS:
        register_operation(escrow, operation, handler)
    app.register_blueprint(escrow, url_prefix="/api/v1")
    app.register_blueprint(system.blueprint, url_prefix="/api/v1")
    app.register_blueprint(reference.blueprint, url_prefix="/api/v1")
    app.add_url_rule("/metrics", "metrics", system.metrics)


def _amounts(settings: Settings) -> dict[Kind, int]:
    return {
        "read": settings.limit_read,
        "write": settings.limit_write,
        "sign-in": settings.limit_sign_in,
        "pay-out": settings.limit_pay_out,
    }
