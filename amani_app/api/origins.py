"""CORS: web pages of explicitly listed origins may call the API from a browser."""

from __future__ import annotations

from flask import Flask, Response, request

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}
EXPOSED = "ETag, Idempotent-Replayed, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"


def register_origins(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of `origins` read the responses of `app`. There are no cookies to send."""
    if not origins:
        return

    @app.after_request
    def _allow(response: Response) -> Response:
        response.vary.add("Origin")
        if (origin := request.headers.get("Origin")) in origins and origin:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                response.headers.update(PREFLIGHT)
        return response
