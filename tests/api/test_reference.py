"""The API reference in a browser."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.serving import make_server

from amani_app import create_app
from amani_app.settings import Settings
from tests.support.browser import Browser
from tests.support.people import Person, World, cheapen_hashing
from tests.support.service_fixtures import SECRET_KEY
from tests.support.waiting import eventually


def test_page_loads_no_external_files(client: FlaskClient) -> None:
    page = client.get("/api/v1/docs")
    assert page.content_type == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for name, kind in (("reference.js", "text/javascript"), ("reference.css", "text/css")):
        found = client.get(f"/api/v1/docs/{name}")
        assert found.content_type == f"{kind}; charset=utf-8"
        for text in (page.text, found.text):
            assert "http://" not in text
            assert "https://" not in text
    for name in ("__init__.py", "..%2Fmodels.py", "nothing"):
        assert client.get(f"/api/v1/docs/{name}").status_code == 404


class Page:
    """The reference in a browser."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        browser.open(f"{url}/api/v1/docs")
        browser.find("#sign_up")

    def send(self, operation: str, body: Any = None, expect: int = 200) -> Any:
        """Open `operation` and send it with `body`, or with the proposed body."""
        if not self.browser.run(f"return document.getElementById('{operation}').open"):
            self.browser.click(f"#{operation} > summary")
        if body is not None:
            self.browser.type(f"#{operation} textarea", json.dumps(body))
        self.browser.click(f"#{operation} button")
        status = self.browser.text(f"#{operation} .status")
        answer = json.loads(self.browser.text(f"#{operation} .body"))
        assert status.startswith(f"{expect} "), (operation, status, answer)
        # The page has filled in the values of the next request.
        eventually(
            lambda: not self.browser.run(
                f"return document.querySelector('#{operation} button').disabled"
            )
        )
        self.browser.click(f"#{operation} > summary")
        return answer

    def act_as(self, person: str) -> None:
        """Select the user of the requests."""
        self.browser.run("document.getElementById('as').value = arguments[0]", person)


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def world(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, str]]:
    cheapen_hashing(monkeypatch)
    url = sqlite_engine.url.render_as_string(hide_password=False)
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield World(app), f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["amani"].engine.dispose()


def test_release_in_a_browser_from_sign_up(
    world: tuple[World, str], browser: Browser, tmp_path: Path
) -> None:
    here, url = world
    page = Page(browser, url)
    blank = browser.screenshot()
    password = "correct horse battery"
    for name in ("ben", "ada"):
        body = {"email": f"{name}@example.org", "name": name, "password": password}
        session = page.send("sign_up", body, expect=201)
    ada = session["user"]["email"]
    here.deposit(Person(here.client, session), 150_050)
    page.send("who_am_i")
    escrow = page.send("create_escrow", expect=201)  # the body that the page proposes
    assert escrow["amount"]["amount"] == "1500.50"
    page.act_as("ben@example.org")
    assert page.send("accept_escrow")["state"] == "accepted"
    page.act_as(ada)
    assert page.send("fund_escrow")["state"] == "funded"
    page.act_as("ben@example.org")
    page.send("submit_milestone")
    page.act_as(ada)
    done = page.send("approve_milestone")
    assert (done["state"], done["milestones"][0]["state"]) == ("completed", "released")
    browser.run("document.getElementById('approve_milestone').open = true")
    browser.run("document.querySelector('#approve_milestone .answers').scrollIntoView()")
    assert "released" in browser.text("#approve_milestone .body")
    shot = browser.screenshot()
    (tmp_path / "released.png").write_bytes(shot)
    assert shot != blank
    assert colours(shot) > 8
    browser.run("document.getElementById('as').value = ''")
    page.send("who_am_i", expect=401)
    hosts = browser.run(
        "return performance.getEntriesByType('resource').map(each => new URL(each.name).origin)"
    )
    assert set(hosts) == {url}
    # The 401 above is the only allowed message: nothing violates the content security policy.
    assert [each for each in browser.complaints() if "401" not in each] == []


def colours(png: bytes) -> int:
    """The number of different bytes in a PNG; a blank page has few."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) >= (800, 600)
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return len(set(zlib.decompress(data)))
