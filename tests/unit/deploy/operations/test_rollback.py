"""The choice of a rollback target."""

from __future__ import annotations

import dataclasses

import pytest

from deploy.errors import UsageError
from deploy.operations.rollback import RollbackTarget, choose_target
from deploy.state.journal import Record


def target(version: str, digest: str, *, live: bool = False) -> RollbackTarget:
    known = {field.name: "" for field in dataclasses.fields(Record)}
    given = {"version": version, "digest": f"sha256:{digest * 64}", "hosts": ("web-1",)}
    return RollbackTarget(
        Record(**{**known, **given, "started": 1.0, "finished": 2.0}), "container", live
    )


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
def test_a_target_is_found_by_version_or_digest(wanted: str, found: RollbackTarget):
    assert choose_target([NEW, REBUILT, OLD], wanted, "trial") is found


@pytest.mark.parametrize("wanted", ["2.0.0", "sha256:" + "d" * 64])
def test_a_version_that_was_never_live_is_refused_with_the_known_ones(wanted: str):
    with pytest.raises(UsageError, match="was never live in trial") as refused:
        choose_target([NEW, OLD], wanted, "trial")
    assert "1.1.0, 1.0.0" in refused.value.hint
