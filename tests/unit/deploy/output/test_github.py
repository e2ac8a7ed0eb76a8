"""Outputs, summaries and notifications of CI jobs, and the gate over other jobs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.output import build_metadata, github
from deploy.state.release import ImageRef, Release
from workshop.quality.workflow_commands import problems


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server of notifications, and the notifications that it received."""
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
    github.notify("production", "success", "1.2.3", environ | {"GITHUB_ACTOR": "ada"})
    assert summary.read_text() == "production: 1.2.3: success (by ada)\n"
    assert got == [{"text": "production: 1.2.3: success (by ada)"}]


def test_unreachable_webhook_fails_nothing_and_is_not_named(capsys: pytest.CaptureFixture[str]):
    url = "http://127.0.0.1:9/secret-path"
    github.notify("production", "failure", "", {"NOTIFY_WEBHOOK_URL": url})
    said = capsys.readouterr().out
    assert "could not be sent" in said
    assert "secret-path" not in said


def test_build_metadata_is_written_as_job_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    image = ImageRef("ghcr.io/a/b", "sha256:" + "0" * 64)
    release = Release("1.2.3", image, "0003", "c0ffee", "2026-11-24T08:00:00Z", {})
    build_metadata.write(tmp_path / "reports" / "release.json", release, "staging", built=True)
    told = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    known = {"repository": "ghcr.io/a/b", "digest": image.digest, "version": "1.2.3"}
    assert told == {**known, "built": "true"}
    written = json.loads((tmp_path / "reports" / "release.json").read_text())
    assert (written["schema_head"], written["environment"]) == ("0003", "staging")


def test_output_of_two_lines_is_rejected():
    with pytest.raises(UsageError, match="line break"):
        github.tell({}, version="1\ndigest=2")


def test_gate_opens_when_all_jobs_succeeded():
    github.gate('{"lint": {"result": "success"}, "unit": {"result": "success"}}')


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_gate_rejects_any_other_result(result: str):
    needs = {"lint": {"result": "success"}, "unit": {"result": result}}
    with pytest.raises(GateRefused, match="unit"):
        github.gate(json.dumps(needs))


@pytest.mark.parametrize("needs", ["", "[]", '{"lint": 1}'])
def test_gate_without_jobs_is_a_usage_error(needs: str):
    with pytest.raises(UsageError, match="NEEDS"):
        github.gate(needs)


def test_gate_needs_at_least_one_job():
    with pytest.raises(GateRefused, match="no job"):
        github.gate("{}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("./inv lint", None),
        ('./inv rollback --version="$PREVIOUS" --auto-confirm', None),
        ("./inv ci.lint --informational=yes", "takes none"),
        ("./inv", "no ./inv TASK"),
        ("curl https://example.org | sh", "no ./inv TASK"),
        ("./inv deploy --env production", "takes a value"),
    ],
)
def test_workflow_line_runs_one_task_with_its_options(line: str, problem: str | None):
    found = list(problems(line))
    assert (problem is None and found == []) or (problem and problem in found[0]), found
