"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from flask import Flask, Response
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.routing import RequestRedirect

from amani_app.telemetry.requests import request_id
from amani_app.application.common.acting import Forbidden, NotFound
from amani_app.application.requests.people import BadCredentials, SecondFactorNeeded
from amani_app.domain.errors import (
    DomainError,
    IllegalTransition,
    InvalidEscrow,
    LedgerError,
    MoneyError,
    NotYourPart,
)
from amani_app.ports.identity import IdentityUnavailable
from amani_app.ports.payments import PaymentRefused, ProviderUnavailable, UnknownPayee
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.store import KeyInUse, KeyReused, StaleVersion

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "2"
"""Seconds after which a client may retry while the database is unreachable."""

PROVIDER_RETRY_AFTER = "15"
"""Seconds after which a client may retry while the payment provider is unreachable."""


@dataclass(frozen=True)
class ProblemDetails:
    """One error response. `type` and `code` are stable; `detail` is text for people."""

    status: int
    code: str
    detail: str = ""
    errors: tuple[Mapping[str, Any], ...] = ()
    allowed: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """The HTTP response, with the id of the running request."""
        body: dict[str, Any] = {
            "type": f"urn:amani:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id(),
        }
        if self.errors:
            body["errors"] = self.errors
        if self.allowed:
            body["allowed"] = self.allowed
        kept = {k: v for k, v in self.headers.items() if k.lower() not in _OWN_HEADERS}
        return Response(json.dumps(body), self.status, kept, content_type=MEDIA_TYPE)


class RequestRefused(Exception):
    """The request is refused with a problem; it had no effect."""

    def __init__(self, problem: ProblemDetails) -> None:
        self.problem = problem
        super().__init__(problem.code)


STATUS: Mapping[type[DomainError], int] = {
    DomainError: 409,
    MoneyError: 422,
    InvalidEscrow: 422,
    NotYourPart: 403,
    Forbidden: 403,
    NotFound: 404,
    BadCredentials: 401,
    SecondFactorNeeded: 403,
    StaleVersion: 412,
    KeyReused: 422,
    PaymentRefused: 422,
    UnknownPayee: 422,
    LedgerError: 500,
}
"""The status of each domain error; the nearest base class counts."""

_OWN_HEADERS = frozenset({"content-type", "content-length"})
UNAVAILABLE = ProblemDetails(
    503,
    "database-unavailable",
    "The database is unreachable. Try again shortly.",
    headers={"Retry-After": RETRY_AFTER},
)


UNKNOWN = ProblemDetails(
    503,
    "identity-unavailable",
    "The identity provider is unavailable. Try again shortly.",
    headers={"Retry-After": "5"},
)


def register_problems(app: Flask) -> None:
    """Return every error of `app` as a problem, including those of routing."""
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_bug)
    app.register_error_handler(RequestRefused, lambda error: error.problem.response())
    app.register_error_handler(DomainError, _from_rules)
    app.register_error_handler(IdentityUnavailable, lambda error: UNKNOWN.response())
    app.register_error_handler(ProviderUnavailable, _from_provider)
    for unreachable in (DatabaseUnavailable, OperationalError, PoolTimeout):
        app.register_error_handler(unreachable, _from_database)


def _from_http(error: HTTPException) -> Response | HTTPException:
    if isinstance(error, RequestRedirect):
        return error
    if error.response is not None:
        return cast(Response, error.response)
    status = error.code or 500
    # Werkzeug's own headers carry Allow, WWW-Authenticate and Retry-After.
    headers = dict(error.get_headers())
    code = HTTPStatus(status).phrase.lower().replace(" ", "-").replace("'", "")
    detail = "" if isinstance(error, InternalServerError) else error.description or ""
    return ProblemDetails(status, code, detail, headers=headers).response()


def _from_rules(error: DomainError) -> Response:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if status >= 500:
        return _from_bug(error)
    headers = {"WWW-Authenticate": 'Bearer realm="amani"'} if status == 401 else {}
    if isinstance(error, KeyInUse):
        headers["Retry-After"] = "1"
    allowed = error.allowed if isinstance(error, IllegalTransition) else ()
    return ProblemDetails(
        status, error.code, str(error), allowed=allowed, headers=headers
    ).response()


def _from_database(error: Exception) -> Response:
    structlog.get_logger().warning("database.unavailable", error=type(error).__name__)
    return UNAVAILABLE.response()


def _from_provider(error: Exception) -> Response:
    structlog.get_logger().warning("payments.unavailable", error=type(error).__name__)
    detail = "The payment provider is unreachable. The request had no effect. Try again shortly."
    headers = {"Retry-After": PROVIDER_RETRY_AFTER}
    return ProblemDetails(503, "payments-unavailable", detail, headers=headers).response()


def _from_bug(error: Exception) -> Response:
    # The traceback goes to the log, with the request id; the client sees no internals.
    structlog.get_logger().error("request.failed", exc_info=error)
    return ProblemDetails(500, "internal-server-error").response()
