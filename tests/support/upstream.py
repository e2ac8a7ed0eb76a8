"""A small service for `python3 -c` that keeps connections and can be slow or unready."""

import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 75
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        url = urlsplit(self.path)
        status = 200
        if url.path == "/api/v1/readiness" and os.path.exists("/tmp/unready"):
            status = 503
        time.sleep(int(parse_qs(url.query).get("delay_ms", ["0"])[0]) / 1000)
        body = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items())
        body = f"slot: {os.environ['SLOT']}\n{body}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Server(("0.0.0.0", 8000), Handler).serve_forever()
