"""People who call the service, and everything that they asked for and were told."""

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
"""Seconds after which an idle connection is opened anew: the service closes it after 95."""
PATIENCE = 15.0
"""Seconds a caller waits for an answer: longer than the service waits for its database."""


@dataclass(frozen=True)
class ApiUser:
    """Somebody who is signed in."""

    id: str
    email: str
    token: str


@dataclass(frozen=True)
class ApiAnswer:
    """What came back; status 0 is a connection that ended before an answer."""

    status: int
    body: Any = None
    replayed: bool = False
    seconds: float = 0.0

    @property
    def acknowledged(self) -> bool:
        """Whether the caller was told that it is done."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the caller was told that nothing happens."""
        return 400 <= self.status < 500 and not self.running

    @property
    def running(self) -> bool:
        """Whether the same request, sent before, still runs."""
        return self.status == 409 and self.body.get("code") == "idempotency-key-in-use"


@dataclass
class ApiRequest:
    """Something asked for under one Idempotency-Key, however often it is sent."""

    person: ApiUser
    path: str
    body: Any = field(default_factory=dict)
    version: int | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    answers: list[ApiAnswer] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """The last word of the path: what is done."""
        return self.path.rpartition("/")[2]

    @property
    def told(self) -> ApiAnswer | None:
        """The first acknowledgement."""
        return next((answer for answer in self.answers if answer.acknowledged), None)


class ApiClient:
    """Connections to the service, one for each thread, kept alive while that works."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mine = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close all of them; no thread may be at one."""
        for connection in self._all:
            connection.close()

    def post(self, request: ApiRequest) -> ApiAnswer:
        """Send *request* once, and note the answer in it. The key is the request id, too."""
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
        """One request, never repeated by itself."""
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
        """A new person. Raises `DeployError`."""
        asked = {"email": email, "name": email.partition("@")[0], "password": PASSWORD}
        return self._session("/auth/signup", asked)

    def sign_in(self, email: str) -> ApiUser:
        """Somebody who is known. Raises `DeployError`."""
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
