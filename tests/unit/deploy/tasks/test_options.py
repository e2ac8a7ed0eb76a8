"""Options that several tasks share."""

from __future__ import annotations

import sys

import pytest

from deploy.tasks.options import default_environment, split_list, words_after_separator


@pytest.mark.parametrize(
    ("text", "parts"), [("", ()), ("one", ("one",)), (" one, two ,,", ("one", "two"))]
)
def test_a_list_is_split_at_commas(text, parts):
    assert split_list(text) == parts


@pytest.mark.parametrize(("value", "name"), [("", "production"), ("staging", "staging")])
def test_the_default_environment_is_amani_env_or_production(monkeypatch, value, name):
    monkeypatch.setenv("AMANI_ENV", value)
    assert default_environment() == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["exec", "--", "flask", "--help"], ["flask", "--help"]), (["exec"], [])],
)
def test_the_words_after_the_separator_are_a_command(monkeypatch, arguments, words):
    monkeypatch.setattr(sys, "argv", ["invoke", *arguments])
    assert words_after_separator() == words
