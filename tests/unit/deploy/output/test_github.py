"""Step outputs, run summaries and notifications."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.output import build_metadata, github
from deploy.state.release import ImageRef, Release, Version


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the URL of a webhook, and the list of the notifications it received."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret-path", got
        server.shutdown()
        thread.join()


def test_notification_goes_to_summary_and_webhook(tmp_path: Path, webhook):
    url, got = webhook
    summary = tmp_path / "summary"
    environ = {"GITHUB_STEP_SUMMARY": str(summary), "NOTIFY_WEBHOOK_URL": url}
    github.send_notification("production", "success", "1.2.3", environ | {"GITHUB_ACTOR": "ada"})
    assert summary.read_text() == "production: 1.2.3: success (by ada)\n"
    assert got == [{"text": "production: 1.2.3: success (by ada)"}]


def test_an_unreachable_webhook_does_not_raise_and_its_url_is_secret(
    capsys: pytest.CaptureFixture[str],
):
    url = "http://127.0.0.1:9/secret-path"
    github.send_notification("production", "failure", "", {"NOTIFY_WEBHOOK_URL": url})
    printed = capsys.readouterr().out
    assert "could not be sent" in printed
    assert "secret-path" not in printed


def test_a_build_is_written_to_the_file_and_the_step_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    image = ImageRef("ghcr.io/a/b", "sha256:" + "0" * 64)
    release = Release(Version("1.2.3"), image, "0003", "c0ffee", "2026-11-24T08:00:00Z", {})
    build_metadata.write_metadata(
        tmp_path / "reports" / "release.json", release, "staging", built=True
    )
    given = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    known = {"repository": "ghcr.io/a/b", "digest": image.digest, "version": "1.2.3"}
    assert given == {**known, "built": "true"}
    written = json.loads((tmp_path / "reports" / "release.json").read_text())
    assert (written["schema_head"], written["environment"]) == ("0003", "staging")


def test_an_output_with_a_line_break_is_refused():
    with pytest.raises(UsageError, match="line break"):
        github.set_outputs({}, version="1\ndigest=2")
