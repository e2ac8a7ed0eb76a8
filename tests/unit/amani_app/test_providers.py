"""The registry of payment providers, their settings, and the webhook of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from flask import Flask

from amani_app import create_app
from amani_app.adapters.fincra.settings import FincraSettings
from amani_app.adapters.manual.payments import sign
from amani_app.adapters.providers import PROVIDERS, select_provider
from amani_app.settings import Settings, SettingsError, read_settings
from tests.support.service_fixtures import SECRET_KEY, Shell

FINCRA = {
    "FINCRA_URL": "https://sandboxapi.fincra.com",
    "FINCRA_SECRET_KEY": "key",
    "FINCRA_PUBLIC_KEY": "public",
    "FINCRA_BUSINESS_ID": "business",
    "FINCRA_WEBHOOK_SECRET": "secret",
}
MANUAL = {
    "MANUAL_PAYTO": "payto://iban/DE75512108001245126199",
    "MANUAL_WEBHOOK_SECRET": "m" * 32,
}
API = "/api/v1"


def set_all(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "environ", "selected"),
    [
        ("", {}, None),
        ("", FINCRA, "fincra"),
        ("", MANUAL, "manual"),
        ("", FINCRA | MANUAL, "fincra"),
        ("fincra", FINCRA | MANUAL, "fincra"),
        ("manual", FINCRA | MANUAL, "manual"),
        ("none", FINCRA, None),
    ],
)
def test_the_setting_selects_and_without_it_the_first_configured_provider_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str, environ: dict[str, str], selected: str | None
) -> None:
    set_all(monkeypatch, environ)
    found = select_provider(name)
    assert (found[0] if found else None) == selected
    if found:
        assert isinstance(found[1], PROVIDERS[found[0]])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("paystack", ("PAYMENT_PROVIDER", "'paystack'", "fincra, manual, none")),
        ("fincra", ("FINCRA_URL", "PAYMENT_PROVIDER=fincra")),
        ("manual", ("MANUAL_PAYTO", "PAYMENT_PROVIDER=manual")),
    ],
)
def test_an_unknown_or_unconfigured_provider_is_an_error(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        select_provider(name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"FINCRA_URL": "https://x"}, ("FINCRA_SECRET_KEY", "FINCRA_WEBHOOK_SECRET")),
        ({"FINCRA_URL": "ftp://x"}, ("FINCRA_URL", "https://")),
        ({"FINCRA_SECRET_KEY": "a\nb"}, ("FINCRA_SECRET_KEY", "characters")),
        ({"FINCRA_URL": "http://x", "ENVIRONMENT": "staging"}, ("must start with https://",)),
        ({"MANUAL_PAYTO": "DE75512108001245126199"}, ("MANUAL_PAYTO", "payto://")),
        ({"MANUAL_PAYTO": MANUAL["MANUAL_PAYTO"]}, ("MANUAL_WEBHOOK_SECRET", "32")),
        ({"MANUAL_WEBHOOK_SECRET": "short"}, ("MANUAL_WEBHOOK_SECRET", "32")),
    ],
)
def test_a_bad_setting_is_named_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    set_all(monkeypatch, environ)
    with pytest.raises(SettingsError) as caught:
        select_provider("")
    for word in words:
        assert word in str(caught.value)


def test_settings_of_a_provider_are_read_from_secret_files(tmp_path: Path) -> None:
    for name, value in FINCRA.items():
        (tmp_path / name).write_text(f"{value}\n")
    found = read_settings(FincraSettings, tmp_path)
    assert found.configured
    assert found.fincra_webhook_secret.get_secret_value() == "secret"
    assert "secret" not in repr(found.fincra_webhook_secret)


def test_a_wrong_provider_stops_the_boot_with_a_message(tmp_path: Path) -> None:
    shell = Shell(DATABASE_URL=f"sqlite:///{tmp_path}/none.sqlite3", PAYMENT_PROVIDER="paystack")
    done = shell.run("flask", "amani", "schema-head")
    assert done.returncode == 2
    assert "PAYMENT_PROVIDER: 'paystack' is not one of fincra, manual, none" in done.stderr


@pytest.fixture
def manual(
    monkeypatch: pytest.MonkeyPatch, migrated_sqlite: Path, tmp_path: Path
) -> Iterator[Flask]:
    set_all(monkeypatch, {**MANUAL, "DATA_DIR": str(tmp_path)})
    file = tmp_path / "amani.sqlite3"
    file.write_bytes(migrated_sqlite.read_bytes())
    app = create_app(Settings(database_url=f"sqlite:///{file}", secret_key=SECRET_KEY))
    yield app
    app.extensions["amani"].engine.dispose()


class TestWebhook:
    RAW = json.dumps({"event": "payout.sent", "data": {"reference": "w1"}}).encode()

    def post(self, app: Flask, name: str, signature: str) -> tuple[int, str]:
        headers = {"Signature": signature, "Content-Type": "application/json"}
        answer = app.test_client().post(f"{API}/webhooks/{name}", data=self.RAW, headers=headers)
        return answer.status_code, str(answer.json.get("code", ""))

    def test_the_provider_in_use_is_answered(self, manual: Flask) -> None:
        good = sign(MANUAL["MANUAL_WEBHOOK_SECRET"], self.RAW)
        assert self.post(manual, "manual", good) == (200, "")
        assert self.post(manual, "manual", "0" * 64) == (401, "forged-notice")

    @pytest.mark.parametrize("name", ["fincra", "paystack"])
    def test_any_other_is_not_found(self, manual: Flask, name: str) -> None:
        good = sign(MANUAL["MANUAL_WEBHOOK_SECRET"], self.RAW)
        assert self.post(manual, name, good) == (404, "not-found")

    def test_without_a_provider_the_answer_is_503(self, app: Flask) -> None:
        assert self.post(app, "fincra", "0" * 128) == (503, "payments-unavailable")
        assert self.post(app, "paystack", "0" * 128) == (404, "not-found")
