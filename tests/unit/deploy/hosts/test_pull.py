"""A pull from a Docker Engine that stops sending news."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.errors import EngineError
from deploy.hosts.docker_engine import DockerEngine

_NEWS = b'{"id":"layer","status":"Downloading","progressDetail":{"current":1,"total":2}}\n'


class _StalledEngine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"ApiVersion":"1.41"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(_NEWS), _NEWS))
        self.rfile.read(1)  # until the client closes the connection

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[DockerEngine]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _StalledEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = ("127.0.0.1", server.server_port)
        made = DockerEngine("web-1", lambda timeout: socket.create_connection(address, timeout))
        yield made
        made.close()
        server.shutdown()


@pytest.mark.timeout(20)
def test_a_stalled_pull_fails_after_its_timeout(engine: DockerEngine) -> None:
    news: list[tuple[int, int]] = []
    started = time.monotonic()
    with pytest.raises(EngineError, match="web-1: cannot pull app v1: not complete within 0.5 s"):
        engine.pull("app", "v1", progress=lambda *seen: news.append(seen), timeout=0.5)
    assert news == [(1, 2)]
    assert 0.5 <= time.monotonic() - started < 5
