"""The steps of `db.upgrade` and `db.downgrade`, and the refusal to delete data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.errors import UsageError
from deploy.execute.plan import Plan, Step, make_stage
from deploy.operations.candidates import Candidate
from deploy.operations.data_loss import data_loss_refused
from deploy.operations.schema import migration_steps
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade, Migrate
from tests.support.planned_world import bare, environment, release

LIVE = Candidate(release(1, head="0003", r0003="backfill"))
DOWNGRADE = Downgrade("one", "0001", "0003", LIVE.release.image.repository, "sha256:x", True)


@pytest.fixture
def facts(tmp_path):
    return replace(bare(environment(tmp_path)), schema="0001")


@pytest.mark.parametrize(
    ("live", "to", "steps"),
    [
        ("0001", "", [("0002", "expand"), ("0003", "backfill")]),
        ("0001", "0002", [("0002", "expand")]),
        ("0003", "", []),
    ],
)
def test_an_upgrade_applies_each_revision_up_to_the_wanted_one(facts, live, to, steps):
    found = migration_steps("one", replace(facts, schema=live), LIVE, to)
    assert found == [Migrate("one", revision, kind) for revision, kind in steps]


def test_a_downgrade_is_one_step_with_the_live_image(facts):
    image = LIVE.release.image
    assert migration_steps("one", replace(facts, schema="0003"), LIVE, "0001") == [
        Downgrade("one", "0001", "0003", image.repository, image.digest, image.registered)
    ]


@pytest.mark.parametrize(("live", "to"), [("0001", "0009"), ("0009", "0001"), (None, "")])
def test_an_unknown_revision_is_refused_with_the_known_ones(facts, live, to):
    with pytest.raises(UsageError, match="the live release must know both") as raised:
        migration_steps("one", replace(facts, schema=live), LIVE, to)
    assert raised.value.hint == "revisions of the live release: 0001, 0002, 0003"


@pytest.mark.parametrize(
    ("steps", "hint"),
    [
        ([DOWNGRADE], "--allow-data-loss permits it"),
        (
            [BackUp("one", "migration"), DOWNGRADE],
            "--allow-data-loss permits it; a backup is taken first",
        ),
    ],
)
def test_the_refusal_lists_the_data_and_mentions_a_backup_only_if_one_is_planned(
    steps: list[Step], hint: str
):
    plan = Plan("deploy", "planned", "1.1.0", "sha256:x", (make_stage("migrate", [steps]),))
    error = data_loss_refused("downgrade", ["bookings: 3 rows"], plan)
    assert error.message == "the downgrade deletes data:\n- bookings: 3 rows"
    assert error.hint == hint
