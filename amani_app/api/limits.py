"""Rate limits over HTTP (draft-ietf-httpapi-ratelimit-headers), with and without Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import structlog
from flask import Flask, Response, g

from amani_app.api.problems import ProblemDetails, RequestRefused
from amani_app.ports.limits import Limiter, LimiterUnavailable, Quota, QuotaUsage

PAUSED = ProblemDetails(
    503,
    "limits-unavailable",
    "Payouts are paused while the rate limiter is unavailable. Try again shortly.",
    headers={"Retry-After": "2"},
)

Kind = Literal["read", "write", "sign-in", "pay-out"]


class Limits:
    """Limits the requests of each kind to `amounts` a minute; 0 is no limit.

    While `limiter` is unavailable, `fallback` counts in each process by itself: reads, writes and
    sign-ins continue under a laxer limit. Payouts are refused, because Amani cannot
    recall a payout.
    """

    def __init__(self, limiter: Limiter, fallback: Limiter, amounts: Mapping[Kind, int]) -> None:
        self._limiter = limiter
        self._fallback = fallback
        self._quotas = {kind: Quota(kind, amount) for kind, amount in amounts.items()}

    def count(self, kind: Kind, whose: str) -> None:
        """Count one request of `whose`. Raises `RequestRefused` (429, or 503 for a payout)."""
        quota = self._quotas[kind]
        if not quota.amount:
            return
        g.standing = standing = self._hit(quota, whose)
        if standing.exceeded:
            detail = f"At most {quota.amount} requests in {quota.seconds} s are allowed."
            headers = {"Retry-After": str(standing.reset)}
            raise RequestRefused(ProblemDetails(429, "quota-exceeded", detail, headers=headers))

    def _hit(self, quota: Quota, whose: str) -> QuotaUsage:
        try:
            return self._limiter.hit(quota, whose)
        except LimiterUnavailable:
            structlog.get_logger().warning("limits.unavailable", quota=quota.name)
            if quota.name == "pay-out":
                raise RequestRefused(PAUSED) from None
            return self._fallback.hit(quota, whose)


def register_limits(app: Flask) -> None:
    """Add the `RateLimit` headers to each response that was counted."""
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    standing: QuotaUsage | None = g.get("standing")
    if standing is not None:
        name, quota = f'"{standing.quota.name}"', standing.quota
        response.headers["RateLimit-Policy"] = f"{name};q={quota.amount};w={quota.seconds}"
        response.headers["RateLimit"] = f"{name};r={standing.remaining};t={standing.reset}"
    return response
