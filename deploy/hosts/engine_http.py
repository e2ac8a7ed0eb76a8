"""HTTP with a Docker Engine over any byte stream: docker-py's client on dialled connections."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import requests
import requests.adapters
import urllib3
from docker.api.client import APIClient
from docker.errors import create_api_error_from_http_exception

POOL = 4
"""The number of connections that a host's calls share. Each is a channel of its transport."""

_BASE_URL = "http://engine:2375"
_HEADER_LIMIT = 65536


class Stream(Protocol):
    """The methods of a socket that are used here."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def settimeout(self, timeout: float | None, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


Dial = Callable[[float], Stream]
"""Opens a new connection to the engine. The argument is the timeout of each read or write in
seconds."""


class _Connection(urllib3.connection.HTTPConnection):
    dial: Dial

    def connect(self) -> None:
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else 60.0
        self.sock = self.dial(timeout)

    @property
    def is_connected(self) -> bool:
        # A channel has no descriptor to poll, but an own state.
        is_idle = getattr(self.sock, "is_idle", None)
        return bool(is_idle()) if is_idle is not None else super().is_connected


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, dial: Dial, size: int, block: bool) -> None:
        super().__init__("engine", maxsize=size, block=block)
        self.ConnectionCls = type("Connection", (_Connection,), {"dial": staticmethod(dial)})


class _Adapter(requests.adapters.HTTPAdapter):
    """Sends all requests through one pool. docker-py's own adapter keeps a pool for each URL,
    including container IDs (docker-py#2966), and so starts a process on the host for nearly every
    call."""

    def __init__(self, dial: Dial, size: int, block: bool, timeout: int) -> None:
        super().__init__()
        self._pool = _Pool(dial, size, block)
        self._timeout = timeout

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            # docker-py sets no limit for the silence of a pull.
            kwargs["timeout"] = self._timeout
        return super().send(*args, **kwargs)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> urllib3.HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class Client(APIClient):
    """docker-py's low-level client on connections from `dial`.

    If `version` is empty, the API version is negotiated, and `about` holds the engine's answer.
    `streaming` gives every unfinished response a connection of its own instead of one of the
    `POOL`, which a few log followers would exhaust.
    """

    about: dict[str, Any]

    def __init__(self, dial: Dial, *, version: str = "", streaming: bool, timeout: int) -> None:
        # The version is given because the constructor would otherwise request it over TCP.
        super().__init__(base_url=_BASE_URL, version=version or "1.41", timeout=timeout)
        # The operator's HTTP proxy and ~/.netrc do not apply to this connection.
        self.trust_env = False
        self.dial = dial
        size = 1 if streaming else POOL
        self.mount("http://", _Adapter(dial, size, block=not streaming, timeout=timeout))
        if not version:
            self.about = self.version(api_version=False)
            self._version = self.about["ApiVersion"]

    def open_stream(self, path: str, params: Mapping[str, Any]) -> requests.Response:
        """GET an endless response, which the caller closes. Raises the errors of docker-py and
        requests."""
        url = f"{self.base_url}/v{self.api_version}{path}"
        response = self.get(url, params=params, stream=True, timeout=(self.timeout, None))
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            create_api_error_from_http_exception(error)
        return response

    def hijack(self, path: str, body: dict[str, Any], stdin: bytes, timeout: float) -> bytes:
        """POST to an endpoint that turns the connection into a raw stream (exec, attach). Sends
        `stdin`, closes it, and returns both outputs in the order of arrival.

        docker-py cannot be used: it reads the socket below a buffered reader that may already hold
        the first bytes of the output. Raises `TimeoutError` after `timeout` seconds,
        `RefusedHijack` if the engine refuses, and `OSError` if the stream breaks.
        """
        stream, rest = self._hijacked(path, body, timeout)
        try:
            # In another thread: a command that answers while it reads would otherwise block both
            # sides.
            threading.Thread(target=_feed, args=(stream, stdin), daemon=True).start()
            return b"".join(payload for _, payload in read_frames(_reader(stream, rest)))
        finally:
            stream.close()

    def open_dialogue(self, path: str, body: dict[str, Any], timeout: float) -> Dialogue:
        """Hijack a connection as `hijack` does, and keep it for many questions."""
        return Dialogue(*self._hijacked(path, body, timeout))

    def _hijacked(self, path: str, body: dict[str, Any], timeout: float) -> tuple[_Limited, bytes]:
        """A raw stream, and the data that has already arrived on it."""
        stream = _Limited(self.dial(timeout), timeout)
        try:
            content = json.dumps(body).encode()
            head = (
                f"POST /v{self.api_version}{path} HTTP/1.1\r\nHost: engine\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            stream.sendall(head.encode() + content)
            return stream, _after_head(stream)
        except BaseException:
            stream.close()
            raise


class _Limited:
    """A stream whose reads and writes together may take `timeout` seconds."""

    def __init__(self, stream: Stream, timeout: float) -> None:
        self._stream = stream
        self.shutdown = stream.shutdown
        self.close = stream.close
        self.allow(timeout)

    def allow(self, timeout: float) -> None:
        """Restart the timeout."""
        self._deadline = time.monotonic() + timeout

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._stream.settimeout(left)

    def recv(self, size: int) -> bytes:
        self._limit()
        return self._stream.recv(size)

    def sendall(self, data: bytes) -> None:
        self._limit()
        self._stream.sendall(data)


class Dialogue:
    """A command that keeps running in a container and answers questions."""

    def __init__(self, stream: _Limited, buffered: bytes) -> None:
        self._stream = stream
        self._frames = read_frames(_reader(stream, buffered))
        self._turn = threading.Lock()

    def ask(self, question: bytes, end: bytes, timeout: float) -> bytes:
        """Send a question and return the answer without `end`.

        Raises `TimeoutError` after `timeout` seconds, and `EOFError` with the last output if
        the command ends instead.
        """
        with self._turn:
            self._stream.allow(timeout)
            self._stream.sendall(question)
            answer = b""
            while not answer.endswith(end):
                _, payload = next(self._frames, (0, b""))
                if not payload:
                    raise EOFError(answer.decode(errors="replace"))
                answer += payload
            return answer.removesuffix(end)

    def close(self) -> None:
        self._stream.close()


def is_timeout(error: BaseException) -> bool:
    """Whether an error of requests means that no answer arrived in time."""
    # While a body is read, requests wraps urllib3's error in a plain ConnectionError.
    inner = error.args[0] if error.args else None
    return isinstance(error, requests.exceptions.Timeout) or isinstance(
        inner, urllib3.exceptions.ReadTimeoutError
    )


class RefusedHijack(Exception):
    """The engine answered a hijack with an error status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def _feed(stream: _Limited, data: bytes) -> None:
    with contextlib.suppress(OSError, EOFError):
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)


def _after_head(stream: _Limited) -> bytes:
    """Read the head of the response. Returns the data after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = stream.recv(65536)
        if not more or len(data) > _HEADER_LIMIT:
            raise ConnectionError("the engine ended the connection")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    status = int(head.split(None, 2)[1])
    if status in (101, 200):
        return rest
    length = re.search(rb"(?i)^content-length:\s*(\d+)", head, re.MULTILINE)
    while length and len(rest) < int(length[1]) and (more := stream.recv(65536)):
        rest += more
    raise RefusedHijack(status, _message(rest))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def _reader(stream: _Limited, buffered: bytes) -> Callable[[int], bytes]:
    buffer = bytearray(buffered)

    def read(size: int) -> bytes:
        while len(buffer) < size and (more := stream.recv(65536)):
            buffer.extend(more)
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    return read


def read_frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """The frames of the engine's multiplexed stream: number (1 output, 2 errors) and payload.

    Each frame has a head of 8 bytes: number, three zeros, the payload's length (Engine API, "Attach
    to a container", stream format).
    """
    while len(head := read(8)) == 8:
        number, length = struct.unpack(">BxxxL", head)
        yield number, read(length)
