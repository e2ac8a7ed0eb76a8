"""The smoke test."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deploy.environment.sections.values import HttpPath, Seconds, Section, Variable


class SmokeAccount(Section):
    """An account of the service that `invoke smoke` signs in with. It needs no rights."""

    username: Variable
    """The secret with the account's name. Containers do not get it."""
    password: Variable
    """The secret with the account's password. Containers do not get it."""
    sign_in_path: HttpPath = "/api/v1/auth/login"
    """The path that answers a POST of name and password (JSON) with a token."""
    username_field: str = "email"
    """The field of that JSON with the name."""
    token_field: str = "token"  # nosec B105
    """The field of the answer's JSON with the token."""
    path: HttpPath = "/api/v1/auth/me"
    """The path to read with the token. It must answer 200."""


class SmokeConfig(Section):
    """Requests through the public route. Every deploy uses the first four keys and `resolve`,
    `invoke smoke` uses all of them."""

    paths: tuple[HttpPath, ...] = ("/api/v1/ping", "/api/v1/health")
    """Paths that must answer 200."""
    version_path: HttpPath = "/api/v1/version"
    """The path whose JSON holds the version of the live release."""
    version_field: str = "version"
    """The field of that JSON with the version."""
    timeout: Seconds = 10.0
    """For one answer."""
    resolve: Literal["host", "dns"] = "host"
    """`host`: send the requests to each web host under the public name. `dns`: send them to the
    address that the name resolves to."""
    document_path: HttpPath | None = "/api/v1/openapi.json"
    """The path of an OpenAPI 3 document. `null`: no check."""
    unknown_path: HttpPath | None = "/api/v1/no-such-route"
    """A path that must answer 404 as `application/problem+json`. `null`: no check."""
    headers: dict[str, str] = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "",
        "Referrer-Policy": "",
        "X-Request-ID": "",
    }
    """Required headers of every answer, with their values. Empty: any value."""
    response_limit: Seconds = 1.0
    """The longest allowed median of five response times, for each of `paths`."""
    certificate_days: Annotated[int, Field(ge=0)] = 14
    """The number of days for which the certificate must still be valid."""
    account: SmokeAccount | None = None
    """The account for the authenticated read. Default: no such check."""
