from __future__ import annotations

import pytest

from amani_app import create_app, practice
from amani_app.settings import Settings


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(practice, "sleep", taken.append)
    return taken


def practising(settings: Settings, fault: str | None = None) -> Settings:
    return settings.model_copy(update={"practice": True, "practice_fault": fault})


def test_delay_is_ignored_outside_practice_mode(settings: Settings, naps: list[float]) -> None:
    assert create_app(settings).test_client().get("/api/v1/ping?delay_ms=2000").status_code == 200
    assert naps == []


def test_delay_is_bounded_in_practice_mode(settings: Settings, naps: list[float]) -> None:
    client = create_app(practising(settings)).test_client()
    for delay in ("2000", "99999999", "-5", "x"):
        assert client.get(f"/api/v1/ping?delay_ms={delay}").status_code == 200
    assert naps == [2.0, 10.0, 0.0]


def test_unhealthy_fault_fails_only_readiness(settings: Settings) -> None:
    client = create_app(practising(settings, "unhealthy")).test_client()
    assert client.get("/api/v1/readiness").status_code == 503
    assert client.get("/api/v1/ping").status_code == 200


def test_smoke_fault_fails_all_but_readiness(settings: Settings) -> None:
    client = create_app(practising(settings, "smoke")).test_client()
    assert client.get("/api/v1/ping").status_code == 500
    assert client.get("/api/v1/version").status_code == 500
    assert "schema is behind" in client.get("/api/v1/readiness").json["detail"]


@pytest.mark.parametrize(
    ("fault", "hook"),
    [("exit", practice.fail_to_serve), ("migration", practice.fail_to_migrate)],
)
def test_exit_fault_ends_process_only_in_practice_mode(
    settings: Settings, fault: str, hook: object
) -> None:
    assert callable(hook)
    hook(settings.model_copy(update={"practice_fault": fault}))
    hook(practising(settings, "smoke"))
    with pytest.raises(SystemExit, match=fault):
        hook(practising(settings, fault))
