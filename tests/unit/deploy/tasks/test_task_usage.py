"""Options that tasks refuse, and the tasks of CI jobs."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from tasks import namespace

# `--env` of a benchmark is the name of a fleet, and a notice accepts any environment.
FREE = {"ci.notify"} | {name for name in namespace.task_names if name.startswith("bench.")}
OF_AN_ENVIRONMENT = [
    name
    for name in sorted(namespace.task_names)
    if name not in FREE and any("env" in each.names for each in namespace[name].get_arguments())
]
VERBS = ("pause", "kill", "cut", "heal", "restart-engine")
GIVEN: dict[str, dict[str, Any]] = {
    "db.downgrade": {"to": "0001"},
    "db.pitr.restore": {"to": "2026-11-23 14:05"},
    "exec": {"command": "true"},
    "remove": {"auto_confirm": True},
    "secrets.set": {"name": "SECRET_KEY"},
}
"""Options that a task requires before its environment."""


def end(task: str, /, **options: Any) -> int:
    """Run a task in this process and return its exit code."""
    with pytest.raises(Exit) as ended:
        namespace[task](Context(), **options)
    return int(ended.value.code)


@pytest.mark.parametrize("name", OF_AN_ENVIRONMENT)
def test_unknown_environment_is_rejected_with_known_ones(
    name: str, capsys: pytest.CaptureFixture[str]
):
    assert end(name, env="nowhere", **GIVEN.get(name, {})) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "staging" in said, said


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bench.deploy", {"hosts": "1,some"}, "--hosts takes numbers such as 1,2,4"),
        ("bench.chaos", {"clients": 0}, "--clients and --seconds must be greater than 0"),
        ("bench.api", {"rounds": 0}, "each option must be at least 1"),
        ("bench.api", {"entries": 49}, "--entries at least 50"),
        ("ci.gate", {}, "NEEDS must hold the context"),
        ("db.downgrade", {}, "to which revision?"),
        *((f"fleet.{verb}", {}, "--host is missing") for verb in VERBS),
        ("fleet.up", {"web": "1,x"}, "--web takes numbers of hosts such as 1,3"),
        ("image.retention", {"keep": 0}, "keep at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_are_rejected(
    name: str,
    options: dict[str, Any],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("NEEDS", raising=False)
    assert end(name, **options) == 2
    assert words in capsys.readouterr().err


def test_gate_names_the_failed_jobs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEEDS", '{"lint": {"result": "success"}, "e2e": {"result": "skipped"}}')
    assert end("ci.gate") == 3
    assert "not every job succeeded: e2e" in capsys.readouterr().err
    monkeypatch.setenv("NEEDS", '{"lint": {"result": "success"}}')
    namespace["ci.gate"](Context())


@pytest.fixture
def flyctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake flyctl on PATH that records its arguments."""
    program = tmp_path / "bin" / "flyctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/called\nexit "$FLY_ENDS"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_fly_deploy_passes_commit_and_schema(
    flyctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLY_ENDS", "0")
    namespace["ci.fly"](Context())
    called = (tmp_path / "called").read_text().splitlines()
    assert called[:3] == ["deploy", "--remote-only", "--yes"]
    arguments = dict(word.split("=", 1) for word in called if "=" in word)
    assert len(arguments["BUILD_SHA"]) == 40
    assert arguments["SCHEMA_REVISIONS"].split(",")[-1].startswith(arguments["SCHEMA_HEAD"])


def test_failed_fly_deploy_fails_the_job(
    flyctl: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLY_ENDS", "1")
    assert end("ci.fly") == 5
    flyctl.unlink()
    assert end("ci.fly") == 2
    assert "flyctl is not on PATH" in capsys.readouterr().err
