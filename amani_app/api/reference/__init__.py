"""The API reference at `/api/v1/docs`: four files, with nothing from another host."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort

FILES = {
    "index.html": "text/html; charset=utf-8",
    "reference.css": "text/css; charset=utf-8",
    "reference.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may load its own files and call its own host only."""

blueprint = Blueprint("reference", __name__)


@blueprint.get("/docs")
def page() -> Response:
    """The page; its script renders the OpenAPI document."""
    return _file("index.html")


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    if name not in FILES:
        abort(404)
    return _file(name)


def _file(name: str) -> Response:
    response = Response(_content(name), content_type=FILES[name])
    response.headers["Content-Security-Policy"] = POLICY
    return response


@cache
def _content(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
