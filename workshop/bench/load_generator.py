"""A load generator in one thread: paced requests over an epoll loop, each one recorded.

A request costs half a dozen system calls and little Python, so that 2,000 requests per second leave
the machine to the measured system. The pace is open: a request is due at its time, however slow the
answers are, and if all connections are busy, its waiting time counts.

Runs as `python -m workshop.bench.load_generator` with a `Profile` as JSON on standard input. Prints
`started` after the first answer, ends on SIGTERM or after `seconds`, then prints all records as
JSON. `load_run.py` starts it and reads the records.
"""

from __future__ import annotations

import errno
import json
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

OK = "ok"
_READ = select.EPOLLIN | select.EPOLLRDHUP
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Profile:
    """The target, the rate and the duration of a load.

    `rate` is requests per second, `fresh` the share of requests on a new connection, `slow` the
    requests per second for `slow_path` instead of `path`. `timeout` limits one request in seconds,
    `connections` the number of kept-alive connections.
    """

    address: str
    port: int
    path: str = "/api/v1/ping"
    slow_path: str = "/api/v1/ping?delay_ms=2000"
    host: str = "localhost"
    rate: float = 2000.0
    fresh: float = 0.2
    slow: float = 1.0
    connections: int = 64
    timeout: float = 15.0
    seconds: float = 600.0


@dataclass
class PendingRequest:
    """A request in progress; `due` is its planned start (monotonic clock, seconds)."""

    due: float
    text: bytes
    fresh: bool


@dataclass
class ClientConnection:
    """One connection and its request in progress."""

    socket: socket.socket
    fresh: bool
    request: PendingRequest | None = None
    connected: bool = False
    received: bytes = b""
    expected: int = -1
    """Bytes of the whole answer; -1 until its head is received."""
    closing: bool = False
    """Whether the server announced that it closes the connection after this answer."""


@dataclass
class Generator:
    """The event loop and the records of all requests."""

    profile: Profile
    starts: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    reconnects: int = 0
    """Kept-alive connections that the server closed between two requests, which is allowed."""
    stopping: bool = False

    def __post_init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, ClientConnection] = {}
        self._idle: deque[ClientConnection] = deque()
        self._waiting: deque[PendingRequest] = deque()
        self._kept = 0
        self._epoch = time.time() - time.monotonic()
        self._announced = False
        profile = self.profile
        host = f"Host: {profile.host}\r\n"
        self._texts = {
            (slow, fresh): (
                f"GET {profile.slow_path if slow else profile.path} HTTP/1.1\r\n{host}"
                f"{'Connection: close' if fresh else 'Accept: */*'}\r\n\r\n"
            ).encode()
            for slow in (False, True)
            for fresh in (False, True)
        }

    def run(self) -> None:
        """Send until `stopping` is set or the time is over, then wait for the last answers."""
        begun = time.monotonic()
        sent = 0
        interval = 1 / self.profile.rate
        swept = begun
        while True:
            now = time.monotonic()
            if self.stopping or now - begun > self.profile.seconds:
                # The sweep below ends requests that take too long, so this loop ends.
                self.stopping = True
                if not self._busy():
                    return
            else:
                while begun + sent * interval <= now:
                    self._begin(sent, now)
                    sent += 1
            if now - swept > 0.25:
                self._sweep(now)
                swept = now
            self._poll(0.1 if self.stopping else begun + sent * interval - time.monotonic())

    def report(self) -> dict[str, Any]:
        """The records: starts (seconds since the epoch), latencies (seconds) and outcomes."""
        return {
            "reconnects": self.reconnects,
            "processor_seconds": time.process_time(),
            "starts": self.starts,
            "latencies": self.latencies,
            "outcomes": self.outcomes,
        }

    def _busy(self) -> bool:
        return bool(self._waiting) or any(each.request for each in self._connections.values())

    def _begin(self, number: int, now: float) -> None:
        profile = self.profile
        # New connections and slow requests are spread evenly, the same in each run.
        fresh = int((number + 1) * profile.fresh) > int(number * profile.fresh)
        share = profile.slow / profile.rate
        slow = int((number + 1) * share) > int(number * share)
        request = PendingRequest(now, self._texts[slow, fresh], fresh)
        if fresh:
            self._connect(request)
        elif self._idle:
            self._send(self._idle.popleft(), request)
        elif self._kept < profile.connections:
            self._connect(request)
        else:
            self._waiting.append(request)

    def _connect(self, request: PendingRequest) -> None:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = ClientConnection(made, request.fresh, request)
        self._kept += not request.fresh
        self._connections[made.fileno()] = connection
        code = made.connect_ex((self.profile.address, self.profile.port))
        if code not in (0, errno.EINPROGRESS):
            self._fail(connection, f"connect: {errno.errorcode.get(code, code)}", registered=False)
            return
        self._epoll.register(made.fileno(), select.EPOLLOUT)

    def _send(self, connection: ClientConnection, request: PendingRequest) -> None:
        connection.request = request
        connection.received = b""
        connection.expected = -1
        try:
            connection.socket.send(request.text)
        except OSError as error:
            self._fail(connection, f"send: {_name(error)}")

    def _poll(self, timeout: float) -> None:
        for number, _events in self._epoll.poll(max(0.0, timeout)):
            connection = self._connections.get(number)
            if connection is None:
                continue
            if connection.connected:
                self._receive(connection)
            else:
                self._established(connection)

    def _established(self, connection: ClientConnection) -> None:
        code = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(connection, f"connect: {errno.errorcode.get(code, code)}")
            return
        connection.connected = True
        self._epoll.modify(connection.socket.fileno(), _READ)
        if connection.request:
            self._send(connection, connection.request)

    def _receive(self, connection: ClientConnection) -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(connection, f"receive: {_name(error)}")
            return
        if not data:
            self._ended(connection)
            return
        connection.received += data
        if connection.expected < 0 and not self._read_head(connection):
            return
        if len(connection.received) >= connection.expected:
            self._answered(connection)

    def _read_head(self, connection: ClientConnection) -> bool:
        head, found, _ = connection.received.partition(_HEAD_END)
        if not found:
            return False
        lower = head.lower()
        _, named, rest = lower.partition(b"\r\ncontent-length:")
        if not named or not lower.startswith(b"http/1.1 "):
            self._fail(connection, "malformed answer")
            return False
        length = int(rest.partition(b"\r\n")[0])
        connection.expected = len(head) + len(_HEAD_END) + length
        connection.closing = b"\r\nconnection: close" in lower
        return True

    def _answered(self, connection: ClientConnection) -> None:
        status = connection.received[9:12].decode(errors="replace")
        self._record(connection, OK if status.startswith("2") else f"status: {status}")
        # The server must close first if it is to close: then the port here is free at once.
        if connection.fresh or connection.closing:
            return
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _ended(self, connection: ClientConnection) -> None:
        if connection.request:
            self._fail(connection, "closed before the answer was complete")
            return
        if not connection.fresh:
            self.reconnects += 1
        self._drop(connection)

    def _fail(self, connection: ClientConnection, outcome: str, registered: bool = True) -> None:
        if connection.request:
            self._record(connection, outcome)
        self._drop(connection, registered)

    def _record(self, connection: ClientConnection, outcome: str) -> None:
        request = connection.request
        if request is None:
            return
        connection.request = None
        self._note(request, outcome)

    def _note(self, request: PendingRequest, outcome: str) -> None:
        self.starts.append(round(request.due + self._epoch, 6))
        self.latencies.append(round(time.monotonic() - request.due, 6))
        self.outcomes.append(outcome)
        if not self._announced:
            self._announced = True
            print("started", flush=True)

    def _drop(self, connection: ClientConnection, registered: bool = True) -> None:
        del self._connections[connection.socket.fileno()]
        if registered:
            self._epoll.unregister(connection.socket.fileno())
        connection.socket.close()
        if not connection.fresh:
            self._kept -= 1
            if connection in self._idle:
                self._idle.remove(connection)
            if self._waiting and self._kept < self.profile.connections:
                self._connect(self._waiting.popleft())

    def _sweep(self, now: float) -> None:
        while self._waiting and now - self._waiting[0].due > self.profile.timeout:
            self._note(self._waiting.popleft(), "timeout: no connection was free")
        for connection in list(self._connections.values()):
            request = connection.request
            if request and now - request.due > self.profile.timeout:
                self._fail(connection, "timeout")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))


def main() -> None:
    """Run the profile from standard input and print the records as JSON."""
    generator = Generator(Profile(**json.loads(sys.stdin.readline())))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        generator.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    generator.run()
    json.dump(generator.report(), sys.stdout)


if __name__ == "__main__":
    main()
