"""An engine that already runs."""

from __future__ import annotations

import pytest

from deploy.machine import engine


@pytest.mark.engine
def test_an_engine_that_answers_is_not_changed():
    announced: list[str] = []
    engine.ensure_engine(announced.append)
    assert announced == []
