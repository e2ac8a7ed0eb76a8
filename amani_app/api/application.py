"""Flask, without what costs each request something and this API has no use for."""

from __future__ import annotations

import typing as t

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin


class Stateless(SessionInterface):
    """Who calls says who they are in each request: no cookie is read, and none is set."""

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """None, ever: Flask then refuses to keep anything in it."""
        return None

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Nothing to save."""


class Application(Flask):
    """Its views and hooks are plain functions: none is asked whether it is a coroutine."""

    session_interface = Stateless()

    def ensure_sync(self, func: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        """The function itself."""
        return func
