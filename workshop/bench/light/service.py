#!/usr/bin/env python3
"""A service without a database that keeps the image contract and needs little processor time.

It shows the effect of deployer and proxy on requests at rates at which the real service would
already use all processors of a small machine.
"""

import asyncio
import json
import os
import signal
from typing import ClassVar

VERSION = os.environ["VERSION"]


def answer(content: object) -> bytes:
    """An HTTP answer with status 200 and this content as JSON."""
    body = json.dumps(content).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


ANSWERS = {
    b"/api/v1/readiness": answer({"ready": True}),
    b"/api/v1/ping": answer({}),
    b"/api/v1/health": answer({"status": "pass"}),
    b"/api/v1/version": answer({"version": VERSION}),
}
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Connection(asyncio.Protocol):
    """A connection with requests without a body, one after another."""

    opened: "ClassVar[set[Connection]]" = set()
    stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # nosec B101
        self.transport = transport
        self.received = b""
        self.busy = False
        self.opened.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.opened.discard(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b"\r\n\r\n"):
            return
        self.busy = True
        path, _, query = self.received.split(b" ", 2)[1].partition(b"?")
        self.received = b""
        delay = int(query.removeprefix(b"delay_ms=") or 0) / 1000
        asyncio.get_running_loop().call_later(delay, self.send, ANSWERS.get(path, ABSENT))

    def send(self, text: bytes) -> None:
        self.transport.write(text)
        self.busy = False
        self.close_if_stopping()

    def close_if_stopping(self) -> None:
        if Connection.stopping and not self.busy:
            self.transport.close()


async def serve() -> None:
    """Serve until SIGTERM, then answer the requests that have been received."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Connection, "0.0.0.0", 8000)  # nosec B104
    await stop.wait()
    server.close()
    Connection.stopping = True
    for connection in tuple(Connection.opened):
        connection.close_if_stopping()
    while Connection.opened:
        await asyncio.sleep(0.01)


asyncio.run(serve())
