"""The checks of `invoke smoke`, each with its requests and its result."""

from __future__ import annotations

import json
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy.observe.probe import Answer, Route

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.secrets import Secret

SAMPLES = 5
"""The number of requests for the median response time."""

SECURE = ("TLSv1.2", "TLSv1.3")
_PROBLEM = "application/problem+json"
_DAY = 86_400


@dataclass(frozen=True)
class ExpectedRelease:
    """The expected version and, if it is known, its schema head.

    `later` are the revisions of later releases, on which this version serves too.
    """

    version: str
    schema: str = ""
    later: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CheckResult:
    """The result of one check at one place; `seconds` is the time of its requests."""

    place: str
    check: str
    passed: bool
    remark: str
    seconds: float


class CheckFailed(Exception):
    """A check failed; the text describes the difference."""


@dataclass
class Inspection:
    """All checks of one public route. `account` is the name and password for the authenticated
    read; `redirect` is the port that must redirect plain HTTP to HTTPS."""

    place: str
    environment: Environment
    route: Route
    expected: ExpectedRelease
    account: tuple[Secret, Secret] | None = None
    redirect: int | None = None
    seconds: float = field(default=0.0, init=False)

    def run(self) -> Iterator[CheckResult]:
        """Run every check, even if others fail."""
        for name, check in self._checks():
            self.seconds = 0.0
            try:
                passed, remark = True, check()
            except CheckFailed as failure:
                passed, remark = False, str(failure)
            yield CheckResult(self.place, name, passed, remark, self.seconds)

    def _checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        smoke = self.environment.smoke
        yield "version", self._version
        for path in dict.fromkeys(
            (*smoke.paths, self.environment.health.path, self.environment.migrations.health_path)
        ):
            yield path, lambda path=path: f"{self._get(path, ok=True).status}"  # type: ignore[misc]
        yield "migrations", self._migrations
        if smoke.document_path:
            yield "openapi", self._document
        if smoke.unknown_path:
            yield "unknown route", self._unknown
        if smoke.headers:
            yield "security headers", self._headers
        if self.route.tls:
            yield "tls", self._tls
        if self.redirect:
            yield "redirect to https", self._redirect
        yield "response time", self._times
        if self.account:
            yield "authenticated read", self._authenticated

    def _send(self, method: str, path: str, **options: Any) -> Answer:
        answer = self.route.send(method, path, timeout=self.environment.smoke.timeout, **options)
        self.seconds += answer.seconds
        if not answer.status:
            raise CheckFailed(f"{path}: no answer: {answer.error}")
        return answer

    def _get(self, path: str, *, ok: bool = False) -> Answer:
        answer = self._send("GET", path)
        if ok and not 200 <= answer.status < 300:
            raise CheckFailed(f"{path} answered {answer.status}: {_start(answer.body)}")
        return answer

    def _version(self) -> str:
        smoke = self.environment.smoke
        body = self._get(smoke.version_path, ok=True).json()
        found = body.get(smoke.version_field) if isinstance(body, dict) else None
        if str(found).removeprefix("v") != self.expected.version.removeprefix("v"):
            raise CheckFailed(f"is {found!r}, expected {self.expected.version!r}")
        return str(found)

    def _migrations(self) -> str:
        migrations, needed = self.environment.migrations, self.expected.schema
        live = self._get(migrations.health_path, ok=True).at(migrations.schema_path)
        if not live:
            raise CheckFailed(
                f"{migrations.health_path} names no revision at {migrations.schema_path}"
            )
        if live in self.expected.later:
            return f"at {live}, later than the {needed} that this release needs"
        if needed and live != needed:
            raise CheckFailed(f"at {live}, expected {needed}")
        return f"at {live}"

    def _document(self) -> str:
        path = str(self.environment.smoke.document_path)
        body = self._get(path, ok=True).json()
        if not isinstance(body, dict) or not str(body.get("openapi", "")).startswith("3."):
            raise CheckFailed(f"{path} is no OpenAPI 3 document")
        if not body.get("paths"):
            raise CheckFailed(f"{path} describes no path")
        return f"OpenAPI {body['openapi']}, {len(body['paths'])} paths"

    def _unknown(self) -> str:
        path = str(self.environment.smoke.unknown_path)
        answer = self._get(path)
        media = answer.headers.get("content-type", "").partition(";")[0]
        body = answer.json()
        if answer.status != 404:
            raise CheckFailed(f"{path} answered {answer.status} instead of 404")
        if media != _PROBLEM or not isinstance(body, dict) or body.get("status") != 404:
            raise CheckFailed(f"{path} answered {media or 'no media type'}, expected {_PROBLEM}")
        return f"404 {media}"

    def _headers(self) -> str:
        answer = self._get(self.environment.smoke.version_path)
        wanted = self.environment.smoke.headers
        if self.route.tls:
            wanted = {"Strict-Transport-Security": "", **wanted}
        wrong = [
            (
                f"{name} is {answer.headers[name.lower()]!r}, expected {value!r}"
                if name.lower() in answer.headers
                else f"no {name}"
            )
            for name, value in wanted.items()
            if answer.headers.get(name.lower()) is None
            or value not in ("", answer.headers[name.lower()])
        ]
        if wrong:
            raise CheckFailed("; ".join(wrong))
        return f"{len(wanted)} of {len(wanted)}"

    def _tls(self) -> str:
        # The connection itself verified the certificate's chain and name.
        answer = self._get(self.environment.smoke.version_path)
        days = ((answer.expires or 0.0) - time.time()) / _DAY
        if answer.protocol not in SECURE:
            raise CheckFailed(f"uses {answer.protocol}")
        if days < self.environment.smoke.certificate_days:
            raise CheckFailed(f"the certificate expires in {days:.1f} days")
        return f"{answer.protocol}, valid for {days:.0f} days"

    def _redirect(self) -> str:
        plain = replace(self.route, port=self.redirect or 80, tls=False)
        answer = plain.get("/", timeout=self.environment.smoke.timeout)
        self.seconds += answer.seconds
        target = urlsplit(answer.headers.get("location", ""))
        if answer.status not in (301, 308) or target.scheme != "https":
            raise CheckFailed(
                f"plain HTTP answered {answer.status or answer.error}, not a redirect"
            )
        return f"{answer.status} to https"

    def _times(self) -> str:
        limit = self.environment.smoke.response_limit
        medians = {
            path: statistics.median(self._get(path).seconds for _ in range(SAMPLES))
            for path in self.environment.smoke.paths
        }
        path, slowest = max(medians.items(), key=lambda item: item[1], default=("", 0.0))
        text = f"{path} in {slowest * 1000:.0f} ms (median of {SAMPLES})"
        if slowest > limit:
            raise CheckFailed(f"{text}, allowed are {limit * 1000:.0f} ms")
        return text

    def _authenticated(self) -> str:
        account = self.environment.smoke.account
        if account is None or self.account is None:
            raise CheckFailed("no account is configured")
        username, password = self.account
        asked = {account.username_field: username.reveal(), "password": password.reveal()}
        answer = self._send(
            "POST",
            account.sign_in_path,
            body=json.dumps(asked).encode(),
            headers={"Content-Type": "application/json", "X-Request-ID": secrets.token_hex(16)},
        )
        body = answer.json()
        token = body.get(account.token_field) if isinstance(body, dict) else None
        if answer.status != 200 or not token:
            # The answer may repeat the password, so the message does not contain it.
            raise CheckFailed(f"{account.sign_in_path} answered {answer.status} and gave no token")
        read = self._send("GET", account.path, headers={"Authorization": f"Bearer {token}"})
        if read.status != 200:
            raise CheckFailed(f"{account.path} answered {read.status} with a valid token")
        return f"{account.path} {read.status}"


def _start(body: bytes) -> str:
    return " ".join(body[:300].decode(errors="replace").split())
