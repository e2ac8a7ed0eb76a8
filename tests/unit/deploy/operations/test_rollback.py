"""Selection of the release to roll back to."""

from __future__ import annotations

import dataclasses

import pytest

from deploy.errors import UsageError
from deploy.operations.rollback import Target, _choose
from deploy.state.journal import Record


def target(version: str, digest: str, *, live: bool = False) -> Target:
    known = {field.name: "" for field in dataclasses.fields(Record)}
    given = {"version": version, "digest": f"sha256:{digest * 64}", "hosts": ("web-1",)}
    return Target(Record(**{**known, **given, "started": 1.0, "finished": 2.0}), "container", live)


NEW, REBUILT, OLD = (target("1.1.0", "a", live=True), target("1.1.0", "b"), target("1.0.0", "c"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1.0.0", OLD),
        ("v1.0.0", OLD),
        ("1.1.0", NEW),
        (REBUILT.record.digest, REBUILT),  # the live release has the same version
    ],
)
def test_release_is_selected_by_version_or_digest(wanted: str, found: Target):
    assert _choose([NEW, REBUILT, OLD], wanted, "trial") is found


@pytest.mark.parametrize("wanted", ["2.0.0", "sha256:" + "d" * 64])
def test_release_that_was_never_live_is_rejected_with_candidates(wanted: str):
    with pytest.raises(UsageError, match="was never live in trial") as refused:
        _choose([NEW, OLD], wanted, "trial")
    assert "1.1.0, 1.0.0" in refused.value.hint
