"""The sandbox of the payment provider as a running server."""

from __future__ import annotations

import threading
from typing import Any

import requests
from werkzeug.serving import BaseWSGIServer, make_server

from amani_app.adapters.fincra.client import FincraClient, FincraCredentials
from amani_app.adapters.fincra.payments import FincraPayments
from amani_app.adapters.fincra.sandbox import create_sandbox

API_KEY = "the api key of the tests"
WEBHOOK_SECRET = "the webhook secret of the tests"


class Running:
    """A WSGI application served on a free port, until `stop`."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self.server: BaseWSGIServer = make_server("127.0.0.1", port, app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


class Sandbox(Running):
    """A running sandbox, with access to its books, switches and webhooks."""

    def __init__(self, webhook_url: str = "") -> None:
        self.app = create_sandbox(webhook_url, WEBHOOK_SECRET, API_KEY)
        super().__init__(self.app)
        self.books, self.switches, self.webhooks = self.app.extensions["sandbox"]
        self.books.base = self.url

    def credentials(self, api_key: str = API_KEY) -> FincraCredentials:
        return FincraCredentials(self.url, api_key, "public", "business", WEBHOOK_SECRET)

    def payments(self, **rest: Any) -> FincraPayments:
        credentials = self.credentials()
        return FincraPayments(credentials, FincraClient(credentials, **rest))

    def tell(self, path: str, **body: Any) -> Any:
        answer = requests.post(f"{self.url}/sandbox/{path}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()
