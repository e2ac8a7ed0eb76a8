"""Sends one request to Fincra's HTTP API and classifies the response."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, TYPE_CHECKING
from dataclasses import dataclass
from decimal import Decimal

import structlog

from amani_app.adapters.breaker import CircuitBreaker
from amani_app.ports.payments import AnswerUnknown, PaymentRefused, ProviderUnavailable

if TYPE_CHECKING:
    import requests

FAILURES = 5
OPEN_SECONDS = 20.0
LARGEST_ANSWER = 1024 * 1024
"""Bytes; every answer that is used here is far smaller."""
NOT_FOUND = "RESOURCE_NOT_FOUND"
DUPLICATE = "DUPLICATE_CUSTOMER_REFERENCE"
UNSURE = frozenset({"SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR", NOT_FOUND})
"""Error types after which the request may have had its effect all the same."""


@dataclass(frozen=True)
class FincraCredentials:
    """The URL of Fincra's API and our keys; `repr` shows the URL only."""

    url: str
    secret_key: str
    public_key: str
    business_id: str
    webhook_secret: str

    def __repr__(self) -> str:
        return f"FincraCredentials({self.url})"


class FincraRefusal(PaymentRefused):
    """A final refusal; `kind` is Fincra's error type."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class FincraClient:
    """Sends requests with a timeout on every wait; numbers are parsed as `Decimal`.

    `timeouts` are seconds to connect and between two bytes. Bodies and headers are never logged.
    """

    def __init__(
        self,
        credentials: FincraCredentials,
        timeouts: tuple[float, float] = (3.0, 10.0),
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._credentials = credentials
        self._timeouts = timeouts
        self._breaker = breaker or CircuitBreaker(FAILURES, OPEN_SECONDS)
        self._local = threading.local()

    def get(self, path: str, **query: str) -> Any:
        """The `data` of the response.

        Raises `KeyError` if Fincra does not know `path`, and otherwise the errors of `post`
        except `FincraRefusal`.
        """
        try:
            return self._data("GET", path, params=query)
        except FincraRefusal as refusal:
            if refusal.kind == NOT_FOUND:
                raise KeyError(path) from None
            raise AnswerUnknown(f"a query was refused: {refusal.kind}") from None

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The `data` of the response.

        Raises `FincraRefusal`, `AnswerUnknown` and `ProviderUnavailable`.
        """
        try:
            return self._data("POST", path, json=body)
        except FincraRefusal as refusal:
            if refusal.kind in UNSURE:
                raise AnswerUnknown(refusal.kind) from None
            raise

    def _data(self, method: str, path: str, **rest: Any) -> Any:
        if not self._breaker.allows():
            raise ProviderUnavailable("the circuit is open after failures in a row")
        begun = time.perf_counter()
        status, good = 0, False
        try:
            status, raw = self._send(method, path, **rest)
            good = status < 500
        finally:
            self._breaker.note(good)
            milliseconds = round((time.perf_counter() - begun) * 1000, 1)
            log = structlog.get_logger()
            (log.info if good else log.warning)(
                "fincra.call", method=method, path=path, status=status, duration_ms=milliseconds
            )
        return _read(status, raw)

    def _send(self, method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        import requests

        url = self._credentials.url.rstrip("/") + path
        try:
            with self._session().request(
                method, url, timeout=self._timeouts, allow_redirects=False, stream=True, **rest
            ) as answer:
                raw = answer.raw.read(LARGEST_ANSWER, decode_content=True)
                return answer.status_code, raw
        # The errors of the library quote the URL and may quote more: they end here.
        except requests.ConnectionError as error:
            if _never_sent(error):
                raise ProviderUnavailable("no connection") from None
            raise AnswerUnknown("the connection ended before the answer") from None
        except Exception as error:
            raise AnswerUnknown(f"no answer: {type(error).__name__}") from None

    def _session(self) -> requests.Session:
        # One for each thread, because sessions are not guaranteed to be thread-safe.
        found: requests.Session | None = getattr(self._local, "session", None)
        if found is None:
            import requests

            found = requests.Session()
            found.headers.update(
                {
                    "api-key": self._credentials.secret_key,
                    "x-pub-key": self._credentials.public_key,
                    "x-business-id": self._credentials.business_id,
                    "accept": "application/json",
                }
            )
            self._local.session = found
        return found


def _never_sent(error: Exception) -> bool:
    from requests import ConnectTimeout
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, ConnectTimeout) or isinstance(reason, NewConnectionError)


def _read(status: int, raw: bytes) -> Any:
    if status in (401, 403, 429):
        # Our key, address or request rate is refused: the request had no effect.
        raise ProviderUnavailable(f"status {status}")
    try:
        body = json.loads(raw, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise AnswerUnknown(f"status {status} without JSON") from None
    match body:
        case {"data": data} if 200 <= status < 300 and _good(body):
            return data
        case dict() if 400 <= status < 500:
            raise _refusal(status, body)
    raise AnswerUnknown(f"status {status}")


def _good(body: Mapping[str, Any]) -> bool:
    """The field is `success` in general, and `status` at the checkout."""
    return (body.get("success") or body.get("status")) is True


def _refusal(status: int, body: Mapping[str, Any]) -> FincraRefusal:
    """Three shapes of error: the gateway's, the application's, the framework's."""
    kind = str(body.get("errorType") or (NOT_FOUND if status == 404 else "REFUSED"))
    text = str(body.get("message") or body.get("error") or kind)
    return FincraRefusal(kind[:64], text[:200])
