"""Missing and placeholder secrets, and the example file of all settings."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import pyrage
import pytest

from amani_app.adapters.providers import PROVIDERS
from amani_app.settings import Settings
from deploy.environment.model import Environment, load_environment
from deploy.errors import UsageError
from deploy.machine.checkout import ROOT
from deploy.secrets.editing import edit, encrypt
from deploy.secrets.inspection import examine, is_placeholder
from deploy.secrets.sources import list_login_names, locate_age_file, parse

GOOD = "k3J9vQp2Lx8Zr5Tn7Wm4Yc6Bd1Fg0Hs3"


def environment(**changes: object) -> Environment:
    values: dict[str, object] = {
        "name": "trial",
        "domain": "api.test",
        "network": {"subnet": "172.29.77.0/24"},
        "hosts": ({"name": "here", "connection": "local"},),
        "secrets": ("DATABASE_URL", "SECRET_KEY"),
        "optional_secrets": ("REDIS_URL",),
        "smoke": {"account": {"username": "SMOKE_EMAIL", "password": "SMOKE_PASSWORD"}},
    }
    return Environment.model_validate({**values, **changes})


@pytest.mark.parametrize(
    "value",
    [
        "changeme",
        "CHANGE_ME_BEFORE_USE",
        "your-secret-key",
        "your_api_key_here",
        "<your key>",
        "<ref>",
        "${DATABASE_URL}",
        "{{ secret }}",
        "xxxxxxxxxxxx",
        "sk_live_000000000",
        "placeholder",
        "TODO",
        "replace-with-a-real-one",
        "https://abc.example.com",
        "postgresql://amani:password@db:5432/amani",
        "redis://:secret@redis:6379/0",
        "password",
        "...",
    ],
)
def test_placeholder_is_detected(value):
    assert is_placeholder(value)


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        "postgresql://amani:Zr5Tn7Wm4Yc6@db.internal:5432/amani",
        "sqlite:////data/amani.sqlite3",
        "redis://10.0.0.3:6379/0",
        "https://qwertyuiop.supabase.co",
        "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ",
        "http://[not-a-url",
    ],
)
def test_real_value_is_no_placeholder(value):
    assert not is_placeholder(value)


def test_each_secret_gets_a_status(tmp_path):
    plain = tmp_path / ".env.trial"
    plain.write_text("DATABASE_URL=\nREDIS_URL=redis://:changeme@cache/0\n")
    plain.chmod(0o600)
    found = examine(environment(), root=tmp_path, environ={"AMANI_SECRET_SECRET_KEY": GOOD})
    assert [(each.name, each.needed, each.state, each.origin) for each in found] == [
        ("DATABASE_URL", "yes", "empty", ".env.trial"),
        ("SECRET_KEY", "yes", "good", "environment"),
        ("REDIS_URL", "optional", "placeholder", ".env.trial"),
        ("SMOKE_EMAIL", "smoke", "missing", ""),
        ("SMOKE_PASSWORD", "smoke", "missing", ""),
    ]
    assert [each.name for each in found if not each.wrong] == ["SECRET_KEY"]


def test_optional_secret_may_be_missing(tmp_path):
    found = examine(environment(secrets=(), smoke={}), root=tmp_path, environ={})
    assert [(each.name, each.wrong) for each in found] == [("REDIS_URL", False)]


def test_check_reports_problems_without_values(tmp_path):
    (tmp_path / "trial.yml").write_text(
        "domain: api.test\nnetwork: {subnet: 172.29.77.0/24}\n"
        "hosts: [{name: here, connection: local}]\nsecrets: [SECRET_KEY, DATABASE_URL]\n"
    )
    told = {"AMANI_SECRET_SECRET_KEY": GOOD, "AMANI_SECRET_DATABASE_URL": f"changeme-{GOOD}"}
    base = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AMANI_ENVIRONMENTS": str(tmp_path)}

    def check(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / ".venv" / "bin" / "invoke"), "secrets.check", "--env=trial", "--json"],
            cwd=ROOT,
            env=base | told | more,
            capture_output=True,
            text=True,
        )

    done = check()
    assert done.returncode == 2
    rows = json.loads(done.stdout.splitlines()[0])["rows"]
    assert {row["name"]: row["state"] for row in rows} == {
        "SECRET_KEY": "good",
        "DATABASE_URL": "placeholder",
    }
    assert "trial: DATABASE_URL: placeholder" in done.stderr
    assert GOOD not in done.stdout + done.stderr
    assert check(AMANI_SECRET_DATABASE_URL="sqlite:////data/a").returncode == 0


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with recipients and an identity for encrypted secrets."""
    key = pyrage.x25519.Identity.generate()
    folder = tmp_path / "config" / "secrets"
    folder.mkdir(parents=True)
    (folder / "recipients").write_text(f"{key.to_public()}\n")
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(key))
    return tmp_path


def editor(folder: Path, script: str) -> str:
    program = folder / "editor"
    program.write_text(f'#!/bin/sh\nstat -c %a "$1" >"{folder}/mode"\n{script}\n')
    program.chmod(0o755)
    return str(program)


def decrypted(root: Path) -> dict[str, str]:
    import os

    from deploy.secrets import age

    path = locate_age_file("trial", root)
    return parse(age.decrypt(path, os.environ), path)


def test_plain_file_is_encrypted_and_edited(sealed, monkeypatch):
    plain = sealed / ".env.trial"
    plain.write_text(f"SECRET_KEY={GOOD}\nREDIS_URL=\n")
    plain.chmod(0o600)
    path, count = encrypt("trial", root=sealed)
    assert (count, decrypted(sealed)) == (1, {"SECRET_KEY": GOOD})
    assert GOOD.encode() not in path.read_bytes()

    monkeypatch.setenv("EDITOR", editor(sealed, 'echo DATABASE_URL=sqlite:////a >>"$1"'))
    monkeypatch.delenv("VISUAL", raising=False)
    assert edit("trial", root=sealed)
    assert decrypted(sealed) == {"SECRET_KEY": GOOD, "DATABASE_URL": "sqlite:////a"}
    assert (sealed / "mode").read_text() == "600\n"
    assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize("script", ["exit 1", 'echo "no secret" >"$1"'])
def test_failed_edit_leaves_the_file_unchanged(sealed, monkeypatch, script):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor(sealed, 'echo SECRET_KEY=one >"$1"'))
    assert edit("trial", root=sealed)
    before = locate_age_file("trial", sealed).read_bytes()
    monkeypatch.setenv("EDITOR", editor(sealed, script))
    with pytest.raises(UsageError):
        edit("trial", root=sealed)
    assert locate_age_file("trial", sealed).read_bytes() == before
    monkeypatch.setenv("EDITOR", editor(sealed, "true"))
    assert not edit("trial", root=sealed)


def test_encrypt_without_plain_file_is_rejected(sealed):
    with pytest.raises(UsageError, match="there is no"):
        encrypt("trial", root=sealed)


def example() -> dict[str, str]:
    """Every variable of the example file, including those in comments."""
    found = re.findall(
        r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.M
    )
    assert len(found) == len(dict(found)), "one is there twice"
    return dict(found)


def service_settings() -> set[str]:
    """The variables of the service and of each payment provider."""
    return {name.upper() for kind in (Settings, *PROVIDERS.values()) for name in kind.model_fields}


def test_example_names_every_setting_and_secret():
    wanted = service_settings()
    for name in ("local", "staging", "production"):
        loaded = load_environment(name, folder=ROOT / "config" / "environments", placeholders=True)
        wanted |= {*loaded.container_secrets, *list_login_names(loaded), *loaded.settings}
    assert wanted - example().keys() == set()


def test_example_names_only_known_variables():
    spoken_of = {"SUPABASE_KEY", "SUPABASE_SERVICE_KEY", "FINCRA_API_KEY", "FINCRA_API_SECRET"}
    sources = [*ROOT.glob("deploy/**/*.py"), *ROOT.glob("amani_app/**/*.py"), ROOT / "Dockerfile"]
    sources.append(ROOT / "docker-compose.yml")
    sources += ROOT.glob("config/environments/*.yml")
    known = " ".join(path.read_text() for path in sources)
    settings = service_settings()
    unknown = {
        name
        for name in example().keys() - spoken_of - settings
        if name not in known and not name.startswith("AMANI_SECRET_")
    }
    assert unknown == set()


def test_example_contains_no_secret_values():
    values = {name: value for name, value in example().items() if value}
    secret = re.compile(r"(KEY|SECRET|PASSWORD|TOKEN|DSN)S?$|^(DATABASE|REDIS)_URL$")
    assert [name for name in values if secret.search(name)] == []
