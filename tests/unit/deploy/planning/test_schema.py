"""The schema changes of a plan: the order by class, and the rollbacks that they allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.errors import GateRefused
from deploy.planning.blue_green import BlueGreen
from deploy.planning.schema_changes import Options
from tests.support.planned_world import World, bare, environment, release

V1 = release(1, "0001")
EXPANDED = release(2, "0002")
CONTRACTED = release(3, "0003", r0003="contract")
FILLED = release(4, "0003", r0003="backfill")
UNSAFE = release(5, "0002", r0002="unsafe")
BOTH = release(6, "0004", r0003="contract")

plan = BlueGreen().plan


@pytest.fixture
def world(tmp_path) -> World:
    env = environment(tmp_path)
    return World(env, bare(env))


def deploy(world, wanted, **options):
    made = plan(world.environment, wanted, world.facts, options=Options(**options))
    world.run(made, wanted)
    return made


def back(world, wanted, **options):
    options = Options(**options)
    return plan(world.environment, wanted, world.facts, kind="rollback", options=options)


def stages(made) -> list[str]:
    return [stage.name for stage in made.stages]


def changes(made) -> list[tuple[str, str]]:
    return [
        (step.kind, getattr(step, "head", "") or getattr(step, "to", ""))
        for step in made.steps()
        if step.kind in ("backup", "migrate", "downgrade")
    ]


def test_each_revision_is_a_step_of_its_own_after_a_backup(world):
    deploy(world, V1)
    made = plan(world.environment, FILLED, world.facts)
    assert changes(made) == [("backup", ""), ("migrate", "0002"), ("migrate", "0003")]
    assert stages(made).index("migrate") < stages(made).index("swap")


def test_the_first_deploy_has_nothing_to_back_up(world):
    assert changes(plan(world.environment, FILLED, world.facts)) == [("migrate", "0003")]


def test_contract_change_runs_after_the_last_old_container_is_retired(world):
    deploy(world, EXPANDED)
    made = plan(world.environment, CONTRACTED, world.facts)
    assert changes(made) == [("backup", ""), ("migrate", "0003")]
    names = stages(made)
    assert names.index("backup") < names.index("swap") < names.index("retire")
    assert names.index("retire") < names.index("contract")
    assert next(s for s in made.stages if s.name == "contract").on_failure == "report"


def test_interrupted_contract_change_is_made_by_the_next_deploy(world):
    deploy(world, EXPANDED)
    made = plan(world.environment, CONTRACTED, world.facts)
    for step in made.steps():
        if getattr(step, "change", "") != "contract":
            world.apply(step, CONTRACTED)
    rest = plan(world.environment, CONTRACTED, world.facts)
    assert stages(rest) == ["backup", "contract"]
    world.run(rest, CONTRACTED)
    assert plan(world.environment, CONTRACTED, world.facts).empty


def test_a_contract_waits_while_only_some_hosts_are_selected(world):
    deploy(world, EXPANDED)
    some = world.environment.select(["one", "two"])
    facts = replace(world.facts, hosts={n: world.facts.hosts[n] for n in ("one", "two")})
    made = plan(some, CONTRACTED, facts)
    assert "contract" not in stages(made)
    assert any("0003 is postponed" in reason for reason in made.reasons)


def test_expand_and_contract_in_one_deploy_are_refused(world):
    deploy(world, V1)
    with pytest.raises(GateRefused, match=r"adds 0002 \(expand\) and removes in 0003") as told:
        plan(world.environment, CONTRACTED, world.facts)
    assert "deploy the release in between first" in told.value.hint


def test_an_unsafe_migration_needs_to_be_allowed(world):
    deploy(world, V1)
    with pytest.raises(GateRefused, match="can stop the service: 0002") as told:
        plan(world.environment, UNSAFE, world.facts)
    assert "--allow-unsafe-migration" in told.value.hint
    made = deploy(world, UNSAFE, unsafe=True)
    assert ("migrate", "0002") in changes(made)


def test_no_backup_no_migration(world):
    deploy(world, V1)
    some = world.environment.select(["two"])
    facts = replace(world.facts, hosts={"two": world.facts.hosts["two"]})
    with pytest.raises(GateRefused, match="`backups.policy` requires a backup"):
        plan(some, EXPANDED, facts)


def test_an_environment_may_do_without_backups(world):
    deploy(world, V1)
    never = world.environment.backups.model_copy(update={"policy": "never"})
    without = world.environment.model_copy(update={"backups": never})
    made = plan(without, EXPANDED, world.facts)
    assert changes(made) == [("migrate", "0002")]


def always(world):
    backups = world.environment.backups.model_copy(update={"policy": "always"})
    world.environment = world.environment.model_copy(update={"backups": backups})


def test_the_policy_always_backs_up_before_every_change_of_the_release(world):
    always(world)
    assert changes(deploy(world, V1)) == [("migrate", "0001")]
    made = deploy(world, release(7, "0001"))
    assert changes(made) == [("backup", "")]
    assert stages(made).index("backup") < stages(made).index("swap")
    assert changes(back(world, V1)) == [("backup", "")]
    assert changes(deploy(world, EXPANDED)) == [("backup", ""), ("migrate", "0002")]


def test_the_policy_always_adds_nothing_to_a_converged_environment(world):
    always(world)
    deploy(world, V1)
    assert plan(world.environment, V1, world.facts).empty


def test_a_rollback_on_the_same_schema_is_a_swap(world):
    deploy(world, V1)
    deploy(world, release(7, "0001"))
    assert changes(back(world, V1)) == []


@pytest.mark.parametrize("newer", [EXPANDED, FILLED])
def test_a_rollback_leaves_a_schema_that_only_grew(world, newer):
    deploy(world, V1)
    deploy(world, newer)
    made = back(world, V1)
    assert changes(made) == []
    assert any(f"stays at {newer.schema_head}" in reason for reason in made.reasons)
    world.run(made, V1)
    assert plan(world.environment, V1, world.facts, kind="rollback").empty


def test_a_rollback_past_a_contract_is_refused_with_both_ways_out(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    deploy(world, CONTRACTED)
    with pytest.raises(GateRefused, match=r"0003 \(contract\) removed what it uses") as told:
        back(world, EXPANDED)
    assert "invoke deploy --env=planned" in told.value.hint
    assert "invoke rollback --env=planned --version=1.2.0 --with-downgrade" in told.value.hint
    with pytest.raises(GateRefused, match="removed what it uses"):
        plan(world.environment, EXPANDED, world.facts)


def test_downgrade_reverts_only_incompatible_revisions_before_the_swap(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    deploy(world, CONTRACTED)
    made = back(world, V1, downgrade=True)
    assert changes(made) == [("backup", ""), ("downgrade", "0002")]
    names = stages(made)
    assert names.index("backup") < names.index("migrate") < names.index("swap")
    step = next(step for step in made.steps() if step.kind == "downgrade")
    assert (step.digest, step.back) == (CONTRACTED.image.digest, "0003")
    world.run(made, V1)
    assert world.facts.schema == "0002"


def test_downgrade_that_breaks_the_live_release_requires_maintenance(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    deploy(world, CONTRACTED)
    deploy(world, BOTH)
    with pytest.raises(GateRefused, match="downgrading 0004 removes") as told:
        back(world, EXPANDED, downgrade=True)
    assert "invoke maintenance.on" in told.value.hint
    closed = {
        name: replace(host, proxy=replace(host.proxy, maintenance=True))
        for name, host in world.facts.hosts.items()
    }
    world.facts = replace(world.facts, hosts=closed)
    assert changes(back(world, EXPANDED, downgrade=True))[-1] == ("downgrade", "0002")


def test_unknown_revision_is_refused(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    world.facts = replace(world.facts, schema="9999")
    with pytest.raises(
        GateRefused, match="the database is at 9999, which is not in the history of 1.1.0"
    ):
        back(world, V1)


def test_a_rollback_never_migrates(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    world.facts = replace(world.facts, schema="0001")
    with pytest.raises(GateRefused, match="a rollback never migrates"):
        back(world, EXPANDED)


def test_schema_is_read_from_the_journal_if_no_service_answers(world):
    deploy(world, V1)
    deploy(world, EXPANDED)
    deploy(world, CONTRACTED)
    world.facts = replace(world.facts, schema=None)
    with pytest.raises(GateRefused, match="removed what it uses"):
        back(world, EXPANDED)
