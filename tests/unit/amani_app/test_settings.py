from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from amani_app.settings import SettingsError, load_settings


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return tmp_path


def test_local_defaults_to_sqlite_in_the_data_directory(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.setenv("DATA_DIR", "/data")
    settings = load_settings(secrets)
    assert settings.environment == "local"
    assert settings.database == "sqlite:////data/amani.sqlite3"


def test_secret_files_are_read(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    (secrets / "DATABASE_URL").write_text("postgresql://amani:pw@db/amani\n")
    (secrets / "SECRET_KEY").write_text("k" * 32)
    settings = load_settings(secrets)
    assert settings.database == "postgresql+psycopg://amani:pw@db/amani"
    assert settings.secret_key.get_secret_value() == "k" * 32


def test_missing_secrets_directory_is_accepted(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "nothing").environment == "local"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ENVIRONMENT": "staging"}, ("DATABASE_URL", "SECRET_KEY", "ENVIRONMENT=staging")),
        ({"LOG_LEVEL": "loud"}, ("LOG_LEVEL", "'INFO'")),
        ({"ENVIRONMENT": "Not A Name"}, ("ENVIRONMENT",)),
        ({"DATABASE_URL": "mysql://amani"}, ("DATABASE_URL", "postgresql://")),
        ({"SECRET_KEY": "short"}, ("SECRET_KEY", "32")),
        ({"DATABASE_POOL_SIZE": "many"}, ("DATABASE_POOL_SIZE", "integer")),
        ({"PRACTICE_FAULT": "flood"}, ("PRACTICE_FAULT", "'smoke'")),
    ],
)
def test_each_bad_setting_is_named_on_its_own_line(
    environ: dict[str, str],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    secrets: Path,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(secrets)
    for word in words:
        assert word in str(caught.value)


def test_error_does_not_quote_secret_values(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://amani:hunter2@db/amani")
    with pytest.raises(SettingsError) as caught:
        load_settings(secrets)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__context__)


def test_settings_are_frozen_and_do_not_show_secrets(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.setenv("SECRET_KEY", "s3cr3t" * 8)
    settings = load_settings(secrets)
    assert "s3cr3t" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.log_level = "DEBUG"  # type: ignore[misc]


def test_practice_mode_is_rejected_in_production(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/amani")
    monkeypatch.setenv("SECRET_KEY", "k" * 32)
    monkeypatch.setenv("PRACTICE", "true")
    with pytest.raises(SettingsError, match="PRACTICE"):
        load_settings(secrets)


def test_fault_without_practice_mode_is_ignored(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.setenv("PRACTICE_FAULT", "exit")
    assert load_settings(secrets).fault is None
    monkeypatch.setenv("PRACTICE", "true")
    assert load_settings(secrets).fault == "exit"
