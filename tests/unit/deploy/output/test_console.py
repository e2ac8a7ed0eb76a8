"""The consoles: what they print, and what they keep secret."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from deploy.errors import GateRefused, UsageError
from deploy.events import Events
from deploy.execute.plan import Plan, Stage, Step
from deploy.machine.checkout import ROOT
from deploy.output.base_console import Console
from deploy.output.console import choose_console
from deploy.output.json_console import JsonConsole
from deploy.output.plain_console import PlainConsole
from deploy.output.prompt import confirm
from deploy.output.rich_console import RichConsole

STEP = {"host": "web-1", "step": "boot"}


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Boot(Step):
    kind: ClassVar[str] = "boot"

    def describe(self) -> str:
        return "boot blue with s3same"


PLAN = Plan(
    "deploy",
    "trial",
    "1.1.0",
    "sha256:x",
    (Stage("boot", ((Boot("web-1"),), (Boot("web-22"),))), Stage("tidy", ((Boot("web-1"),),))),
    ("web-1 runs 1.0.0",),
)


@pytest.fixture(autouse=True)
def terminal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("stream", "environ", "asked_json", "expected"),
    [
        (Terminal(), {}, False, RichConsole),
        (Terminal(), {"CI": "true"}, False, PlainConsole),
        (Terminal(), {"TERM": "dumb"}, False, PlainConsole),
        (io.StringIO(), {}, False, PlainConsole),
        (Terminal(), {}, True, JsonConsole),
        (io.StringIO(), {}, True, JsonConsole),
    ],
)
def test_the_console_depends_on_the_stream(
    stream: io.StringIO,
    environ: dict[str, str],
    asked_json: bool,
    expected: type[Console],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert type(choose_console(asked_json, stream)) is expected


def emit_run(console: Console) -> None:
    """Emit the events of a run as the executor does."""
    events = Events(console)
    events.emit("plan", "3 steps", data={"reasons": ["web-1 runs 1.0.0"]}, at=0)
    events.emit("stage-started", "boot", at=1)
    events.emit("step-started", "boot blue", **STEP, at=2)
    events.emit("step-progress", **STEP, data={"done": 1, "total": 4}, at=3)
    events.emit("step-finished", "boot blue", **STEP, data={"seconds": 1.25}, at=4)
    events.emit("step-skipped", "pull", host="web-1", step="pull", at=5)
    events.emit("warning", "slow [bold]", host="web-1", at=6)
    events.emit("step-failed", "it exited\nlast lines of its log", host="web-1", step="x", at=7)
    events.emit("revert-started", "taking back", at=8)
    events.emit("revert-failed", "cannot stop", host="web-1", step="x", at=9)
    events.emit("stage-finished", "boot", data={"seconds": 2}, at=10)


def test_plain_lines_have_time_host_and_outcome() -> None:
    stream = io.StringIO()
    with PlainConsole(stream) as console:
        emit_run(console)
    assert stream.getvalue().splitlines() == [
        "00:00:00Z 3 steps",
        "00:00:00Z   web-1 runs 1.0.0",
        "00:00:01Z -- boot",
        "00:00:02Z web-1: boot blue",
        "00:00:04Z web-1: done: boot blue (1.2 s)",
        "00:00:05Z web-1: nothing to do: pull",
        "00:00:06Z web-1: warning: slow [bold]",
        "00:00:07Z web-1: FAILED: it exited",
        "00:00:08Z REVERTING: taking back",
        "00:00:09Z web-1: REVERT FAILED: cannot stop",
    ]


def test_a_terminal_shows_the_same_and_removes_its_live_rows() -> None:
    stream = Terminal()
    with RichConsole(stream) as console:
        emit_run(console)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = [line.rstrip() for line in text.splitlines()]
    for line in (
        "boot",
        "  ✓ web-1  boot blue (1.2 s)",
        "  = web-1  pull",
        "  ! web-1  slow [bold]",
        "  ✗ web-1  it exited",
        "  ↶        taking back",
        "  ✗ web-1  cannot stop",
    ):
        assert line in lines
    assert "last lines" not in text
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_the_json_console_prints_json_lines_only() -> None:
    stream = io.StringIO()
    with pytest.raises(GateRefused), JsonConsole(stream) as console:
        emit_run(console)
        console.show_table("hosts", [{"host": "web-1", "weight": 0, "ok": None}])
        console.show_plan(PLAN)
        console.show_summary("1.1.0 serves", {"url": "http://x"})
        raise GateRefused("disk nearly full", hint="free some", host="web-1")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["kind"] for line in lines[-4:]] == ["table", "planned", "result", "error"]
    assert lines[3] == {
        "kind": "step-progress",
        "host": "web-1",
        "step": "boot",
        "data": {"done": 1, "total": 4},
        "at": 3,
    }
    assert lines[-4]["rows"] == [{"host": "web-1", "weight": 0, "ok": None}]
    assert lines[-3]["hash"] == PLAN.hash
    assert lines[-1] == {
        "kind": "error",
        "text": "disk nearly full",
        "hint": "free some",
        "host": "web-1",
        "exit_code": 3,
    }


def test_an_interruption_ends_the_json_lines_with_an_error() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), JsonConsole(stream):
        raise KeyboardInterrupt
    assert json.loads(stream.getvalue()) == {
        "kind": "error",
        "text": "interrupted",
        "exit_code": 130,
    }


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole, JsonConsole])
def test_every_text_is_redacted(kind: type[Console]) -> None:
    stream = Terminal()
    with pytest.raises(UsageError) as caught, kind(stream) as console:
        console.redact = lambda text: text.replace("s3same", "***")
        events = Events(console)
        data = {"reasons": ["s3same"], "deep": [{"x": ("s3same",)}]}
        events.emit("plan", "s3same", data=data)
        events.emit("step-started", "s3same", **STEP)
        events.emit("step-failed", "s3same", **STEP)
        console.show_table("s3same", [{"a": "s3same", "b": ["s3same"]}])
        console.show_summary("s3same", {"a": "s3same"})
        if kind is not JsonConsole:  # a plan as JSON is not redacted: its hash depends on it
            console.show_plan(PLAN)
        raise UsageError("no: s3same", hint="s3same")
    assert "***" in stream.getvalue() and "s3same" not in stream.getvalue()
    assert (caught.value.message, caught.value.hint, str(caught.value)) == (
        "no: ***",
        "***",
        "no: ***",
    )


ROWS = [
    {"host": "web-1", "slots": ["blue", "green"], "weight": 100, "healthy": True},
    {"host": "jobs", "slots": [], "weight": 0, "healthy": None},
]


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole])
def test_table_columns_are_aligned(kind: type[Console]) -> None:
    stream = io.StringIO()
    kind(stream).show_table("hosts", ROWS)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert ["hosts"] in rows and ["host", "slots", "weight", "healthy"] in rows
    assert ["web-1", "blue,", "green", "100", "yes"] in rows and ["jobs", "0", "-"] in rows


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole])
def test_an_empty_table_shows_its_text(kind: type[Console]) -> None:
    stream = io.StringIO()
    kind(stream).show_table("history", [], empty="no release yet")
    assert [line.strip() for line in stream.getvalue().splitlines()] == [
        "history",
        "no release yet",
    ]


@pytest.mark.parametrize("kind", [PlainConsole, RichConsole])
def test_plans_are_shown_by_stage_and_host(kind: type[Console]) -> None:
    stream = io.StringIO()
    kind(stream).show_plan(PLAN)
    text = " ".join(stream.getvalue().split())
    wanted = [
        "1. boot",
        "web-1",
        "boot blue",
        "web-22",
        "boot blue",
        "2. tidy",
        "web-1",
        "boot blue",
    ]
    assert re.search(".*".join(map(re.escape, wanted)), text)


def test_no_color_disables_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with RichConsole(stream) as console:
        console.show_summary("done", {"url": "x"})
        Events(console).emit("warning", "slow")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", stream.getvalue())


def test_a_run_continues_if_the_reader_closes_the_stream() -> None:
    code = (
        "import sys\n"
        "from deploy.output.console import choose_console\n"
        "from deploy.events import Events\n"
        "with choose_console(False) as console:\n"
        "    for n in range(20000): Events(console).emit('note', 'x' * 80)\n"
        "print('went on', file=sys.stderr)\n"
    )
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        os.read(reader, 100)
        os.close(reader)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "went on\n")


def test_a_terminal_without_unicode_gets_plain_lines() -> None:
    code = (
        "from deploy.output.console import choose_console; from deploy.events import Events\n"
        "with choose_console(False) as console: Events(console).emit('note', 'naïve')\n"
    )
    main, side = pty.openpty()
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    environ.pop("CI", None)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, stdout=side, check=True)
    os.close(side)
    assert os.read(main, 1000).endswith(b"Z na\\xefve\r\n")
    os.close(main)


@pytest.mark.parametrize("answer", ["production\n", " production \n"])
def test_a_confirmation_needs_the_expected_text(answer: str, capsys: Any) -> None:
    stdin = Terminal(answer)
    confirm("Roll back production?", "production", stdin=stdin)
    out, err = capsys.readouterr()
    assert out == "" and "Roll back production?\nType production to confirm: " in err


@pytest.mark.parametrize("answer", ["", "\n", "y\n", "yes\n", "Production\n"])
def test_another_answer_does_not_confirm(answer: str) -> None:
    with pytest.raises(UsageError, match="nothing was changed"):
        confirm("Sure?", "production", stdin=Terminal(answer))


def test_without_a_terminal_only_the_option_confirms() -> None:
    with pytest.raises(UsageError, match="cannot ask for confirmation") as caught:
        confirm("Sure?", "production", stdin=io.StringIO("production\n"))
    assert "--auto-confirm" in caught.value.hint
    confirm("Sure?", "production", stdin=io.StringIO(), automatic=True)
