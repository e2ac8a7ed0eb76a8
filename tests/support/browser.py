"""A headless Chromium, driven over WebDriver (W3C)."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import requests

from tests.support.waiting import eventually

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference in the WebDriver standard."""


class Browser:
    """One window with a temporary profile."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="amani-browser-"))
        for program in ("chromium", "chromedriver"):
            if not shutil.which(program):
                raise RuntimeError(f"no {program}; try: apt-get install chromium chromium-driver")
        self._log = self._home / "log"
        with self._log.open("wb") as log:
            self._driver = subprocess.Popen(
                ["chromedriver", "--port=0"],
                env={**os.environ, "TMPDIR": str(self._home), "HOME": str(self._home)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._http = requests.Session()
        self._http.trust_env = False  # requests to this machine use no proxy
        try:
            self._session = self._open(f"http://127.0.0.1:{eventually(self._port)}/session")
        except BaseException:
            self.close()
            raise

    def _port(self) -> str:
        found = re.search(r"successfully on port (\d+)", self._log.read_text())
        return found[1] if found else ""

    def _open(self, url: str) -> str:
        words = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,900"]
        options = {
            "goog:chromeOptions": {"args": [f"--{word}" for word in words]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._http.post(
            url, json={"capabilities": {"alwaysMatch": options}}, timeout=60
        ).json()
        return f"{url}/{answer['value']['sessionId']}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Send a WebDriver command and return its value."""
        asked = {"json": body} if method == "POST" else {}
        answer = self._http.request(method, f"{self._session}{path}", timeout=60, **asked)
        value = answer.json()["value"]
        assert answer.ok, value
        return value

    def open(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def find(self, css: str) -> str:
        """Wait for the element and return its id."""

        def found() -> list[dict[str, str]]:
            listed = self.call("POST", "/elements", using="css selector", value=css)
            return cast(list[dict[str, str]], listed)

        return f"/element/{eventually(found)[0][ELEMENT]}"

    def click(self, css: str) -> None:
        """Click a visible element."""
        element = self.find(css)
        into_view = "arguments[0].scrollIntoView({block: 'center'})"
        self.run(into_view, {ELEMENT: element.rpartition("/")[2]})
        self.call("POST", f"{element}/click")

    def type(self, css: str, text: str) -> None:
        """Replace the text of a field."""
        element = self.find(css)
        self.call("POST", f"{element}/clear")
        self.call("POST", f"{element}/value", text=text)

    def text(self, css: str) -> str:
        """The visible text of the element."""
        return str(self.call("GET", f"{self.find(css)}/text"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its result."""
        return self.call("POST", "/execute/sync", script=script, args=arguments)

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self.call("GET", "/screenshot"))

    def complaints(self) -> list[str]:
        """The messages of the browser's console."""
        return [each["message"] for each in self.call("POST", "/se/log", type="browser")]

    def close(self) -> None:
        """Close the window and delete its profile."""
        try:
            if hasattr(self, "_session"):
                self.call("DELETE", "")
        finally:
            self._http.close()
            self._driver.terminate()
            self._driver.wait(timeout=20)
            shutil.rmtree(self._home, ignore_errors=True)
