"""An HTTP client of the service that records each request and its answers."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from deploy.errors import DeployError
from workshop.bench.local_service import API, PASSWORD

IDLE = 60.0
"""Seconds after which an idle connection is opened again: the service closes it after 95."""
PATIENCE = 15.0
"""Seconds that a client waits for an answer: longer than the service waits for its database."""


@dataclass(frozen=True)
class ApiUser:
    """A signed-in user with an access token."""

    id: str
    email: str
    token: str


@dataclass(frozen=True)
class ApiAnswer:
    """An answer of the service; status 0 if the connection ended before an answer."""

    status: int
    body: Any = None
    replayed: bool = False
    seconds: float = 0.0

    @property
    def acknowledged(self) -> bool:
        """Whether the answer has a status from 200 to 299."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the service reported that the request has no effect."""
        return 400 <= self.status < 500 and not self.running

    @property
    def running(self) -> bool:
        """Whether the service still processes the same request, sent earlier."""
        return self.status == 409 and self.body.get("code") == "idempotency-key-in-use"


@dataclass
class ApiRequest:
    """A request with one Idempotency-Key, and the answers to all its sendings."""

    person: ApiUser
    path: str
    body: Any = field(default_factory=dict)
    version: int | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    answers: list[ApiAnswer] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """The last segment of the path, which names the operation."""
        return self.path.rpartition("/")[2]

    @property
    def acknowledgement(self) -> ApiAnswer | None:
        """The first answer that reports success, or None."""
        return next((answer for answer in self.answers if answer.acknowledged), None)


class ApiClient:
    """One kept-alive connection to the service for each thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close all connections; no thread may use one."""
        for connection in self._all:
            connection.close()

    def post(self, request: ApiRequest) -> ApiAnswer:
        """Send `request` once and append the answer to it. Its key is also the request id."""
        headers = {"Idempotency-Key": request.key, "X-Request-ID": request.key}
        if request.version is not None:
            headers["If-Match"] = f'"{request.version}"'
        body = json.dumps(request.body)
        answer = self.ask("POST", request.path, request.person.token, body, headers)
        request.answers.append(answer)
        return answer

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> ApiAnswer:
        """Send one request without a retry; a lost connection gives an answer with status 0."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        started = time.monotonic()
        connection = self._connection()
        try:
            connection.request(method, f"{API}{path}", body, sent)
            response = connection.getresponse()
            status, raw = response.status, response.read()
            replayed = response.headers.get("Idempotent-Replayed") == "true"
            found = json.loads(raw)
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            return ApiAnswer(0, seconds=time.monotonic() - started)
        return ApiAnswer(status, found, replayed, time.monotonic() - started)

    def sign_up(self, email: str) -> ApiUser:
        """Create a user. Raises `DeployError` if the service refuses."""
        asked = {"email": email, "name": email.partition("@")[0], "password": PASSWORD}
        return self._session("/auth/signup", asked)

    def sign_in(self, email: str) -> ApiUser:
        """Sign an existing user in. Raises `DeployError` if the service refuses."""
        return self._session("/auth/login", {"email": email, "password": PASSWORD})

    def _session(self, path: str, asked: dict[str, str]) -> ApiUser:
        answer = self.ask("POST", path, body=json.dumps(asked))
        if not answer.acknowledged:
            raise DeployError(f"{path} answered {answer.status}: {answer.body}")
        return ApiUser(answer.body["user"]["id"], asked["email"], answer.body["token"])

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=PATIENCE
            )
            self._all.append(self._mine.connection)
            self._mine.used = time.monotonic()
        found: http.client.HTTPConnection = self._mine.connection
        if time.monotonic() - self._mine.used > IDLE:
            found.close()  # the next request opens it
        self._mine.used = time.monotonic()
        return found
