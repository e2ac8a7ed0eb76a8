"""Flask, without what costs each request something and this API has no use for."""

from __future__ import annotations

import typing as t

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter
from werkzeug.wsgi import get_host


class NoSession(SessionInterface):
    """Who calls says who they are in each request: no cookie is read, and none is set."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """None, ever: Flask then refuses to keep anything in it."""
        return None

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Nothing to save."""


class Application(Flask):
    """Its views and hooks are plain functions: none is asked whether it is a coroutine."""

    session_interface = NoSession()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Bound to the request as it was read already: no name of a host decides anything here."""
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

    def ensure_sync(self, func: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        """The function itself."""
        return func
