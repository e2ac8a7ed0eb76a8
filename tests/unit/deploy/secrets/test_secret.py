"""Secrets are not shown, and are redacted in texts."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest

from deploy.secrets import Secret, Secrets, redact

VALUE = 'hunter2/ö &"quoted"'


def raised(secret: Secret) -> str:
    try:
        raise RuntimeError(f"cannot use {secret}", secret)
    except RuntimeError:
        return traceback.format_exc()


def logged(secret: Secret) -> str:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s %r", (secret, secret), None)
    return logging.Formatter().format(record)


SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda secret: f"{secret:>40} {secret!r}",
    "percent": lambda secret: "%s %r" % (secret, secret),
    "container": lambda secret: repr({"a": [secret]}),
    "dataclass": lambda secret: repr(dataclasses.asdict(Secrets({"A": secret}))),
    "json": lambda secret: json.dumps({"a": secret}, default=str),
    "exception": raised,
    "log": logged,
    "secrets": lambda secret: repr(Secrets({"A": secret}, {"r": (secret, secret)})),
    "copy": lambda secret: repr(copy.deepcopy(secret)),
}


@pytest.mark.parametrize("way", SHOWN)
def test_secret_is_redacted_in_texts(way: str) -> None:
    text = SHOWN[way](Secret(VALUE))
    assert "***" in text
    assert "hunter2" not in text


def test_secret_is_revealed_only_explicitly() -> None:
    assert Secret(VALUE).reveal() == VALUE
    assert not hasattr(Secret(VALUE), "__dict__")


def test_secret_cannot_be_pickled_or_encoded() -> None:
    for attempt in (pickle.dumps, json.dumps):
        with pytest.raises(TypeError) as caught:
            attempt(Secret(VALUE))
        assert "hunter2" not in str(caught.value)


def test_secrets_are_compared_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"


def secrets_of(*values: str, password: str = "") -> Secrets:
    named = {f"S{n}": Secret(value) for n, value in enumerate(values)}
    return Secrets(named, {"r.test/a": (Secret("robot"), Secret(password))} if password else {})


@pytest.mark.parametrize(
    "shown",
    [
        VALUE,
        quote(VALUE, safe=""),
        json.dumps(VALUE),
        base64.b64encode(VALUE.encode()).decode(),
        f"({VALUE}) and {VALUE}",
    ],
)
def test_values_are_redacted_in_every_encoding(shown: str) -> None:
    text = redact(f"error: cannot log in with {shown}: refused", secrets_of("other", VALUE))
    assert "***" in text and text.startswith("error: cannot log in with ")
    assert "hunter2" not in text and text.endswith(": refused")


def test_secret_lines_and_url_passwords_are_redacted() -> None:
    secrets = secrets_of("-----BEGIN\nc0ffee\n", "postgresql://app:s3same@db.test/x")
    assert redact("line 2 is c0ffee", secrets) == "line 2 is ***"
    assert redact('password "s3same" rejected', secrets) == 'password "***" rejected'
    assert redact("db.test", secrets) == "db.test"


def test_registry_passwords_are_redacted_but_not_user_names() -> None:
    assert redact("robot:pa55word", secrets_of(password="pa55word")) == "robot:***"


def test_longer_values_are_redacted_first() -> None:
    assert redact("abcdefgh", secrets_of("abcd", "abcdefgh")) == "***"


def test_very_short_values_are_not_redacted() -> None:
    assert redact("a1 b1 c1", secrets_of("1", "")) == "a1 b1 c1"
    assert redact("text", Secrets({})) == "text"


def test_digest_depends_on_names_values_and_salt() -> None:
    digests = {
        Secrets({"A": Secret("1")}).digest(b"s"),
        Secrets({"A": Secret("2")}).digest(b"s"),
        Secrets({"B": Secret("1")}).digest(b"s"),
        Secrets({"A": Secret("1")}).digest(b"t"),
    }
    assert len(digests) == 4
    assert secrets_of(password="pa55word").digest(b"s") not in digests
    assert Secrets({"A": Secret("1")}, {"r": (Secret("u"), Secret("p"))}).digest(b"s") in digests


def test_registry_credentials_are_found_by_repository() -> None:
    secrets = secrets_of(password="pa55word")
    assert secrets.registry("r.test/a") == ("robot", "pa55word")
    assert secrets.registry("r.test/b") is None
