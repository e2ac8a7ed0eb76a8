"""Flask without sessions, host matching and coroutine support, which cost time on each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter
from werkzeug.wsgi import get_host


class NoSession(SessionInterface):
    """No cookie is read or set: each request carries its token."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """`None`: Flask then refuses to store anything in the session."""
        return None

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Nothing to save."""


class Application(Flask):
    """Views and hooks are plain functions, so none is checked for being a coroutine."""

    session_interface = NoSession()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bound to the parsed request; the routes do not depend on the host name."""
        if request is None:
            return super().create_url_adapter(None)
        request.host = host = get_host(request.environ)
        return self.url_map.bind(
            host.lower(),
            request.root_path,
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
            query_args=request.environ.get("QUERY_STRING"),
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func
