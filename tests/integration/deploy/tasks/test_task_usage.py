"""Tasks that need the engine before they check their options."""

from __future__ import annotations

from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from tasks import namespace

VERBS = ("pause", "kill", "cut", "heal", "restart-engine")


def end(task: str, /, **options: Any) -> int:
    """Run a task in this process; its exit code."""
    with pytest.raises(Exit) as ended:
        namespace[task](Context(), **options)
    return int(ended.value.code)


@pytest.mark.engine
def test_a_host_of_a_stopped_fleet_is_refused(capsys: pytest.CaptureFixture[str]):
    for verb in VERBS:
        assert end(f"fleet.{verb}", name="never-up", host=1) == 2
        assert "fleet.up" in capsys.readouterr().err
    assert end("fleet.status", name="never-up") == 2
    namespace["fleet.down"](Context(), name="never-up")
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.engine
def test_unknown_base_image_is_rejected(capsys: pytest.CaptureFixture[str]):
    assert end("image.bases", names=["nginx:1"]) == 2
    assert "no base image is named nginx:1" in capsys.readouterr().err
