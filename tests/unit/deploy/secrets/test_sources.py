"""Sources of secrets, their order, and rejected files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyrage
import pytest

from deploy.environment.model import Environment, load_environment
from deploy.errors import UsageError
from deploy.secrets import Secrets, load_secrets
from deploy.secrets.sources import check_name, list_origins, locate_age_file, parse, store


def environment(**changes: object) -> Environment:
    values: dict[str, object] = {
        "name": "trial",
        "domain": "api.test",
        "network": {"subnet": "172.29.77.0/24"},
        "hosts": ({"name": "here", "connection": "local"},),
        "secrets": ("DATABASE_URL", "SECRET_KEY"),
        "optional_secrets": ("REDIS_URL",),
    }
    return Environment.model_validate({**values, **changes})


BOTH = {"AMANI_SECRET_DATABASE_URL": "sqlite://", "AMANI_SECRET_SECRET_KEY": "from-variable"}


def dotenv(root: Path, text: str, mode: int = 0o600) -> Path:
    path = root / ".env.trial"
    path.write_text(text)
    path.chmod(mode)
    return path


def load(root: Path, environ: dict[str, str] | None = None, **changes: object) -> Secrets:
    return load_secrets(environment(**changes), root=root, environ=environ or {})


def revealed(secrets: Secrets) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in secrets.values.items()}


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An age identity whose public key is the only recipient."""
    key = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity"
    path.write_text(f"# created: today\n{key}\n")
    folder = tmp_path / "config" / "secrets"
    folder.mkdir(parents=True)
    (folder / "recipients").write_text(f"# ada\n{key.to_public()}\n")
    monkeypatch.setenv("AMANI_AGE_IDENTITY", str(path))
    return path


def test_variables_override_the_file_and_the_file_the_encrypted_one(
    tmp_path: Path, identity: Path
) -> None:
    for name in ("DATABASE_URL", "SECRET_KEY", "REDIS_URL"):
        store("trial", name, "from-age", root=tmp_path)
    dotenv(tmp_path, "SECRET_KEY=from-file\nREDIS_URL=from-file\n")
    environ = {"AMANI_SECRET_REDIS_URL": "from-variable", "AMANI_AGE_IDENTITY": str(identity)}
    secrets = load(tmp_path, environ)
    assert revealed(secrets) == {
        "DATABASE_URL": "from-age",
        "SECRET_KEY": "from-file",
        "REDIS_URL": "from-variable",
    }
    assert list_origins(environment(), root=tmp_path, environ=environ) == [
        ("DATABASE_URL", "yes", "config/secrets/trial.age"),
        ("SECRET_KEY", "yes", ".env.trial"),
        ("REDIS_URL", "optional", "environment"),
    ]


def test_file_beside_the_environment_file_is_read(tmp_path: Path) -> None:
    generated = tmp_path / ".amani" / "trial"
    generated.mkdir(parents=True)
    (generated / "trial.yml").write_text(
        "domain: api.test\nnetwork: {subnet: 172.29.77.0/24}\nsecrets: [A, B]\n"
        "hosts: [{name: here, connection: local}]\n"
    )
    dotenv(generated, "A=beside\nB=beside\n")
    dotenv(tmp_path, "A=root\n")
    found = load_secrets(load_environment("trial", folder=generated), root=tmp_path, environ={})
    assert revealed(found) == {"A": "root", "B": "beside"}


def test_only_declared_secrets_are_loaded(tmp_path: Path) -> None:
    secrets = load(tmp_path, {**BOTH, "AMANI_SECRET_OTHER": "x", "HOME": "/x"})
    assert set(revealed(secrets)) == {"DATABASE_URL", "SECRET_KEY"}


def test_all_missing_secrets_are_named_with_ways_to_set_them(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="needs secrets that have no value: DATABASE_URL, SECRET_KEY"
    ) as c:
        load(
            tmp_path,
            {"DATABASE_URL": "postgresql://u:tell-nobody@db/x", "AMANI_SECRET_SECRETKEY": "x"},
        )
    assert c.value.exit_code == 2
    for part in (
        "AMANI_SECRET_DATABASE_URL",
        ".env.trial (mode 0600)",
        "secrets.set DATABASE_URL --env=trial",
        "DATABASE_URL is set, but only AMANI_SECRET_DATABASE_URL is read",
        'SECRET_KEY: a similar name has a value (did you mean "SECRETKEY"?)',
    ):
        assert part in c.value.hint
    assert "tell-nobody" not in c.value.message + c.value.hint


def test_empty_value_counts_as_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no value: SECRET_KEY$"):
        load(tmp_path, {**BOTH, "AMANI_SECRET_SECRET_KEY": ""})


def test_registry_credentials_do_not_reach_containers(tmp_path: Path) -> None:
    image = {
        "repository": "r.test/a",
        "registries": ("r.test/a",),
        "credentials": {"r.test/a": {"username": "R_USER", "password": "R_TOKEN"}},
    }
    with pytest.raises(UsageError, match="no value: R_USER, R_TOKEN$"):
        load(tmp_path, BOTH, image=image)
    without = load_secrets(environment(image=image), registries=False, root=tmp_path, environ=BOTH)
    assert without.registry("r.test/a") is None
    environ = {**BOTH, "AMANI_SECRET_R_USER": "robot", "AMANI_SECRET_R_TOKEN": "pa55word"}
    secrets = load(tmp_path, environ, image=image)
    assert secrets.registry("r.test/a") == ("robot", "pa55word")
    assert set(secrets.values) == {"DATABASE_URL", "SECRET_KEY"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_file_readable_by_others_is_rejected(tmp_path: Path, mode: int) -> None:
    path = dotenv(tmp_path, "SECRET_KEY=x\n", mode)
    with pytest.raises(UsageError, match="can be read by other users") as caught:
        load(tmp_path, BOTH)
    assert caught.value.hint == f"chmod 600 {path}"


def test_committed_file_is_rejected(tmp_path: Path) -> None:
    dotenv(tmp_path, "SECRET_KEY=x\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert load(tmp_path, BOTH)
    subprocess.run(["git", "-C", str(tmp_path), "add", ".env.trial"], check=True)
    with pytest.raises(UsageError, match="is committed to git") as caught:
        load(tmp_path, BOTH)
    assert "git rm --cached .env.trial" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A = b c", "b c"),
        ("A=", ""),
        ("A=a=b#c", "a=b#c"),
        ("A='a \"b\" \\n $c'", 'a "b" \\n $c'),
        ('A="a \\"b\\" \\\\ \\n$c"', 'a "b" \\ \n$c'),
        ("  A=b  ", "b"),
    ],
)
def test_lines_are_parsed(line: str, value: str) -> None:
    assert parse(f"# first\n\n{line}\n", Path("f")) == {"A": value}


@pytest.mark.parametrize(
    "line",
    [
        "tell-nobody",
        "A='tell-nobody",
        'A="tell-nobody\\"',
        "A-B=tell-nobody",
        "='tell-nobody'",
        "A='tell'nobody'",
    ],
)
def test_invalid_lines_are_rejected_without_quoting_them(line: str) -> None:
    with pytest.raises(UsageError, match="^f:2: not a line of the form NAME=value$") as caught:
        parse(f"# first\n{line}\n", Path("f"))
    assert "nobody" not in str(caught.value) + caught.value.hint


def test_duplicate_name_is_rejected() -> None:
    with pytest.raises(UsageError, match="^f:2: A is a duplicate name$"):
        parse("A=1\nA=2\n", Path("f"))


@pytest.mark.parametrize("value", ["plain", 'a "b" \\ c', "two\nlines\n", "tab\t#='", " spaces "])
def test_encrypted_values_round_trip(tmp_path: Path, identity: Path, value: str) -> None:
    store("trial", "OTHER", "kept", root=tmp_path)
    path = store("trial", "DATABASE_URL", value, root=tmp_path)
    assert b"BEGIN AGE ENCRYPTED FILE" in path.read_bytes()
    environ = {"AMANI_AGE_IDENTITY": str(identity), "AMANI_SECRET_SECRET_KEY": "x"}
    assert revealed(load(tmp_path, environ))["DATABASE_URL"] == value


def test_encrypted_value_can_be_removed(tmp_path: Path, identity: Path) -> None:
    store("trial", "REDIS_URL", "x", root=tmp_path)
    store("trial", "REDIS_URL", "", root=tmp_path)
    environ = {**BOTH, "AMANI_AGE_IDENTITY": identity.read_text().split("\n")[1]}
    assert "REDIS_URL" not in revealed(load(tmp_path, environ))


def test_ssh_keys_open_the_encrypted_file(tmp_path: Path) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    key = ssh / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    folder = tmp_path / "config" / "secrets"
    folder.mkdir(parents=True)
    (folder / "recipients").write_text(key.with_suffix(".pub").read_text())
    store("trial", "REDIS_URL", "redis://", root=tmp_path)
    secrets = load(tmp_path, {**BOTH, "HOME": str(tmp_path)})
    assert revealed(secrets)["REDIS_URL"] == "redis://"


def test_encrypted_file_without_key_names_the_missing_setting(
    tmp_path: Path, identity: Path
) -> None:
    path = store("trial", "REDIS_URL", "x", root=tmp_path)
    assert path == locate_age_file("trial", tmp_path)
    with pytest.raises(UsageError, match="no key to decrypt it was found") as caught:
        load(tmp_path, {**BOTH, "HOME": str(tmp_path)})
    assert "AMANI_AGE_IDENTITY" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("other", "cannot be decrypted"),
        ("nonsense", "is not a usable private key"),
        ("absent", "No such file or directory"),
    ],
)
def test_wrong_keys_are_reported(tmp_path: Path, identity: Path, given: str, expected: str) -> None:
    store("trial", "REDIS_URL", "x", root=tmp_path)
    (tmp_path / "other").write_text(str(pyrage.x25519.Identity.generate()))
    (tmp_path / "nonsense").write_text("tell-nobody")
    with pytest.raises(UsageError, match=expected) as caught:
        load(tmp_path, {**BOTH, "AMANI_AGE_IDENTITY": str(tmp_path / given)})
    assert "tell-nobody" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [("", "names no public key"), ("age1nonsense\n", "is not a public key")],
)
def test_store_without_valid_recipients_is_rejected(
    tmp_path: Path, recipients: str, expected: str
) -> None:
    folder = tmp_path / "config" / "secrets"
    folder.mkdir(parents=True)
    (folder / "recipients").write_text(recipients)
    with pytest.raises(UsageError, match=expected):
        store("trial", "REDIS_URL", "x", root=tmp_path)
    assert not locate_age_file("trial", tmp_path).exists()


def test_only_declared_secrets_can_be_stored() -> None:
    check_name(environment(), "REDIS_URL")
    with pytest.raises(
        UsageError, match='no secret .REDIS_URI. .did you mean "REDIS_URL"'
    ) as caught:
        check_name(environment(), "REDIS_URI")
    assert "DATABASE_URL, SECRET_KEY, REDIS_URL" in caught.value.hint
