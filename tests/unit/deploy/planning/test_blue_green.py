"""The planner over every state that a run, or a killed run, can leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.execute.plan import Plan
from deploy.planning.blue_green import BlueGreen
from deploy.state.facts import Facts, other
from tests.support.planned_world import World, bare, environment, image, release, with_server

V1, V2, V3 = release(1), release(2), release(3, head="0002")

plan = BlueGreen().plan


@pytest.fixture
def env(tmp_path):
    return environment(tmp_path)


@pytest.fixture
def frugal(tmp_path):
    """A world whose hosts stop what served before."""
    made = environment(tmp_path, standby="stopped")
    return World(made, bare(made))


@pytest.fixture
def world(env):
    return World(env, bare(env))


def deploy(world, wanted, kind="deploy") -> Plan:
    made = plan(world.environment, wanted, world.facts, kind=kind)
    world.run(made, wanted)
    return made


def kinds(made: Plan, host: str | None = None) -> list[str]:
    return [step.kind for step in made.steps() if host in (None, step.host)]


def serving(facts: Facts) -> dict[str, str]:
    """The version that each host's traffic reaches."""
    found = {}
    for name, host in facts.hosts.items():
        slot = host.live_slot
        standing = host.container("web", slot) if slot else None
        found[name] = standing.version if standing and standing.running else "nothing"
    return found


def test_first_deploy_prepares_fetches_migrates_and_opens_every_host(world):
    made = deploy(world, V1)
    assert [stage.name for stage in made.stages] == [
        "fetch",
        "prepare",
        "migrate",
        "swap",
        "workers",
        "smoke",
        "record",
    ]
    assert kinds(made, "one") == [
        "pull",
        "pull",
        "deliver-secrets",
        "proxy",
        "migrate",
        "boot",
        "verify",
        "shift",
        "smoke",
        "record",
    ]
    assert serving(world.facts) == {"one": "1.1.0", "two": "1.1.0", "three": "1.1.0"}


def test_the_migration_runs_once_and_before_any_boot(world):
    made = plan(world.environment, V1, world.facts)
    order = kinds(made)
    assert order.count("migrate") == 1
    assert order.index("migrate") < order.index("boot")


def test_a_converged_environment_gives_an_empty_plan(world):
    deploy(world, V1)
    assert plan(world.environment, V1, world.facts).empty


def test_upgrade_boots_the_idle_slot_and_retires_the_old_one_after_the_smoke(world):
    deploy(world, V1)
    made = deploy(world, V2)
    names = [stage.name for stage in made.stages]
    assert names.index("smoke") < names.index("retire") < names.index("record")
    host = world.facts.hosts["one"]
    assert host.live_slot == "green"
    assert kept(world, "web") == ("1.1.0", "running", "drain")
    assert kept(world, "worker", "three") == ("1.1.0", "exited", None)


def test_previous_release_is_stopped_if_the_environment_requires_it(frugal):
    deploy(frugal, V1)
    made = deploy(frugal, V2)
    moves = ["boot", "verify", "shift", "drain", "smoke", "retire", "record"]
    assert kinds(made, "one") == ["pull", *moves]
    assert kept(frugal, "web") == ("1.1.0", "exited", "maint")


def test_standby_is_stopped_once_the_environment_requires_it(world, frugal):
    deploy(world, V1)
    deploy(world, V2)
    frugal.facts = world.facts
    assert set(kinds(deploy(frugal, V2))) == {"drain", "retire"}
    assert kept(frugal, "web") == ("1.1.0", "exited", "maint")


def test_standby_that_a_contract_change_breaks_is_stopped_first(world):
    deploy(world, V1)
    made = deploy(world, release(3, head="0002", r0002="contract"))
    assert kinds(made).index("retire") < kinds(made).index("migrate")
    assert kept(world, "web") == ("1.1.0", "exited", "maint")


def test_only_the_previously_live_release_is_a_standby(world):
    deploy(world, V1)
    made = plan(world.environment, V2, world.facts)
    world.run(made, V2, kinds(made).index("verify") + 1)
    deploy(world, V1)
    assert [c.version for c in world.facts.hosts["one"].containers if c.slot] == ["1.1.0"]


def test_crashed_container_is_no_standby(world):
    deploy(world, V1)
    deploy(world, V2)
    host = world.facts.hosts["one"]
    dead = replace(host.container("web", "blue"), state="restarting")
    others = tuple(c for c in host.containers if (c.role, c.slot) != ("web", "blue"))
    host = replace(host, containers=(*others, dead))
    world.facts = replace(world.facts, hosts={**world.facts.hosts, "one": host})
    assert kinds(plan(world.environment, V2, world.facts)) == ["drain", "retire"]


def test_standby_is_drained_before_another_release_replaces_it(world):
    deploy(world, V1)
    made = deploy(world, V2)
    assert "drain" not in kinds(made)
    moves = kinds(plan(world.environment, release(3), world.facts), "one")
    assert moves == ["pull", "drain", "retire", "boot", "verify", "shift", "smoke", "record"]


def test_same_release_with_earlier_secrets_is_no_standby(world):
    deploy(world, V1)
    hosts = {name: replace(host, secrets="") for name, host in world.facts.hosts.items()}
    world.facts = replace(world.facts, hosts=hosts)
    deploy(world, V1)
    assert kept(world, "web") == ("1.1.0", "exited", "maint")


def test_an_upgrade_without_a_schema_change_does_not_migrate(world):
    deploy(world, V1)
    assert "migrate" not in kinds(plan(world.environment, V2, world.facts))
    assert "migrate" in kinds(plan(world.environment, V3, world.facts))


def test_the_worker_boots_after_the_web_hosts_and_the_old_one_stops_last(world):
    deploy(world, V1)
    made = plan(world.environment, V2, world.facts)
    roles = [(s.kind, getattr(s, "role", "")) for s in made.steps() if s.host == "three"]
    assert roles.index(("boot", "web")) < roles.index(("boot", "worker"))
    assert roles.index(("boot", "worker")) < roles.index(("retire", "worker"))


def test_batches_move_one_after_another(tmp_path):
    env = environment(tmp_path, batch="1")
    made = plan(env, V1, bare(env))
    swaps = [stage for stage in made.stages if stage.name.startswith("swap")]
    assert [{step.host for lane in stage.lanes for step in lane} for stage in swaps] == [
        {"one"},
        {"two"},
        {"three"},
    ]


@pytest.mark.parametrize("standby", ["running", "stopped"])
@pytest.mark.parametrize("second", ["upgrade", "same", "back"])
def test_a_run_killed_after_any_step_is_completed_by_the_next_one(tmp_path, second, standby):
    env = environment(tmp_path, standby=standby)
    wanted = {"upgrade": V3, "same": V2, "back": V1}[second]
    start = World(env, bare(env))
    deploy(start, V1)
    first = plan(env, V2, start.facts)
    for step in range(len(list(first.steps())) + 1):
        world = World(env, start.facts)
        world.clock = 100
        world.run(first, V2, step)
        assert "nothing" not in serving(world.facts).values()
        deploy(world, wanted)
        version = str(wanted.version)
        assert serving(world.facts) == dict.fromkeys(env_names(env), version), step
        assert plan(env, wanted, world.facts).empty, step
        assert_nothing_left_over(world, wanted, standby)


def test_a_first_deploy_killed_after_any_step_is_completed_by_the_next_one(env):
    first = plan(env, V1, bare(env))
    for step in range(len(list(first.steps())) + 1):
        world = World(env, bare(env))
        world.run(first, V1, step)
        deploy(world, V1)
        assert serving(world.facts) == dict.fromkeys(env_names(env), "1.1.0"), step
        assert plan(env, V1, world.facts).empty, step


def test_a_repair_killed_after_any_step_is_completed_too(env):
    start = World(env, bare(env))
    deploy(start, V1)
    first = plan(env, V2, start.facts)
    half = len(list(first.steps())) // 2
    start.run(first, V2, half)
    repair = plan(env, V3, start.facts)
    for step in range(len(list(repair.steps())) + 1):
        world = World(env, start.facts)
        world.clock = 100
        world.run(repair, V3, step)
        deploy(world, V3)
        assert serving(world.facts) == dict.fromkeys(env_names(env), "1.3.0"), step
        assert plan(env, V3, world.facts).empty, step


def env_names(env):
    return [host.name for host in env.hosts]


def kept(world, role: str, host: str = "one") -> tuple[str, str, str | None]:
    """Version and state of what served before, and what the proxy does with its slot."""
    facts = world.facts.hosts[host]
    found = facts.container(role, other(facts.live_slot))
    server = facts.proxy.servers[found.slot].state if role == "web" else None
    return found.version, found.state, server


def assert_nothing_left_over(world, wanted, policy):
    for host in world.facts.hosts.values():
        assert [c.role for c in host.containers if c.slot is None] == ["proxy"]
        running = [c for c in host.containers if c.running and c.slot]
        serving = [c for c in running if c.version == str(wanted.version)]
        assert {c.role for c in serving} == set(host.roles)
        assert len(serving) == len(host.roles)
        standbys = [c for c in running if c not in serving]
        assert policy == "running" or not standbys
        for standby in standbys:
            assert (standby.role, host.proxy.servers[standby.slot].state) == ("web", "drain")
            assert host.was_live(standby)
        assert not [c for c in host.containers if c.role == "one-off"]


def test_a_shift_killed_between_its_halves_is_finished_towards_the_recorded_slot(world):
    deploy(world, V1)
    deploy(world, V2)
    host = with_server(world.facts.hosts["one"], "blue", state="ready", up=True)
    blue = replace(host.container("web", "blue"), state="running")
    others = tuple(c for c in host.containers if c.id != blue.id)
    host = replace(host, containers=(*others, blue))
    world.facts = replace(world.facts, hosts={**world.facts.hosts, "one": host})
    made = deploy(world, V2)
    assert kinds(made, "one") == ["shift", "smoke", "record"]
    assert plan(world.environment, V2, world.facts).empty


@pytest.mark.parametrize("weights", [{"green": 100}, {"blue": 95, "green": 5}, {}])
def test_a_file_with_other_weights_is_corrected(world, weights):
    deploy(world, V1)
    host = world.facts.hosts["one"]
    host = replace(host, proxy=replace(host.proxy, recorded_weights=weights))
    world.facts = replace(world.facts, hosts={**world.facts.hosts, "one": host})
    assert kinds(deploy(world, V1)) == ["record-live"]
    assert plan(world.environment, V1, world.facts).empty


def test_hosts_on_mixed_versions_converge(env):
    world = World(env, bare(env))
    deploy(world, V1)
    made = plan(env, V2, world.facts)
    for step in made.steps():
        if step.host == "two":
            world.apply(step, V2)
    assert serving(world.facts) == {"one": "1.1.0", "two": "1.2.0", "three": "1.1.0"}
    made = deploy(world, V2)
    assert "boot" not in kinds(made, "two")
    assert set(serving(world.facts).values()) == {"1.2.0"}


def test_rollback_to_the_standby_only_moves_the_traffic(world):
    deploy(world, V1)
    deploy(world, V3)
    before = world.facts.hosts["one"].container("web", "blue")
    made = deploy(world, V1, kind="rollback")
    assert kinds(made, "one") == ["verify", "shift", "smoke", "record"]
    assert world.facts.hosts["one"].container("web", "blue") == before
    assert set(serving(world.facts).values()) == {"1.1.0"}


@pytest.mark.parametrize("trouble", [{"up": False}, {"state": "maint"}])
def test_a_standby_that_the_proxy_does_not_find_up_is_verified_like_any_other(world, trouble):
    deploy(world, V1)
    deploy(world, V2)
    host = with_server(world.facts.hosts["one"], "blue", **trouble)
    world.facts = replace(world.facts, hosts={**world.facts.hosts, "one": host})
    made = plan(world.environment, V1, world.facts, kind="rollback")
    assert [s.standby for s in made.steps() if s.kind == "verify" and s.host == "one"] == [False]


def test_a_rollback_starts_the_kept_container_and_pulls_and_migrates_nothing(frugal):
    world = frugal
    deploy(world, V1)
    deploy(world, V3)
    made = plan(world.environment, V1, world.facts, kind="rollback")
    assert not {"pull", "migrate", "deliver-secrets", "proxy"} & set(kinds(made))
    before = world.facts.hosts["one"].container("web", "blue")
    world.run(made, V1)
    after = world.facts.hosts["one"].container("web", "blue")
    assert after == replace(before, state="running")
    assert set(serving(world.facts).values()) == {"1.1.0"}


def test_a_rollback_past_the_kept_container_boots_from_the_image(world):
    for wanted in (V1, V2, V3):
        deploy(world, wanted)
    made = plan(world.environment, V1, world.facts, kind="rollback")
    assert "pull" not in kinds(made)
    world.run(made, V1)
    assert set(serving(world.facts).values()) == {"1.1.0"}


def test_a_deploy_of_an_older_release_leaves_the_newer_schema(world):
    deploy(world, V1)
    deploy(world, V3)
    assert "migrate" not in kinds(plan(world.environment, V1, world.facts))


def test_a_crashed_live_container_is_replaced_in_the_other_slot(world):
    deploy(world, V1)
    host = with_server(world.facts.hosts["one"], "blue", up=False)
    dead = replace(host.container("web", "blue"), state="exited")
    others = tuple(c for c in host.containers if c.id != dead.id)
    host = replace(host, containers=(*others, dead))
    world.facts = replace(world.facts, hosts={**world.facts.hosts, "one": host})
    made = deploy(world, V1)
    assert kinds(made, "one")[:3] == ["boot", "verify", "shift"]
    assert serving(world.facts)["one"] == "1.1.0"


def test_changed_secrets_make_new_containers(world):
    deploy(world, V1)
    hosts = {name: replace(host, secrets="") for name, host in world.facts.hosts.items()}
    made = plan(world.environment, V1, replace(world.facts, hosts=hosts))
    assert kinds(made, "two")[:2] == ["deliver-secrets", "boot"]


def test_earlier_secrets_go_with_the_last_container_that_needs_them(world):
    deploy(world, V1)
    for _ in range(2):
        hosts = {name: replace(host, secrets="") for name, host in world.facts.hosts.items()}
        world.facts = replace(world.facts, hosts=hosts)
        made = deploy(world, V1)
        assert plan(world.environment, V1, world.facts).empty
    assert kinds(made, "two")[-1] == "prune"
    assert {host.generations for host in world.facts.hosts.values()} == {frozenset({"g2", "g3"})}


def test_half_delivered_secrets_are_removed_by_the_next_deploy(world):
    hosts = {
        name: replace(host, generations=frozenset({"half"}))
        for name, host in world.facts.hosts.items()
    }
    world.facts = replace(world.facts, hosts=hosts)
    deploy(world, V1)
    assert {host.secrets for host in world.facts.hosts.values()} == {"g2"}
    assert {host.generations for host in world.facts.hosts.values()} == {frozenset({"g2"})}


def test_a_failed_release_is_pruned_and_the_retention_is_kept(tmp_path):
    env = environment(tmp_path, {"one": "[web]"})
    world = World(env, bare(env))
    for number in range(1, 9):
        deploy(world, release(number))
    digests = [d for i in world.facts.hosts["one"].images for d in i.digests]
    assert digests == [release(n).image.reference for n in range(4, 9)]
    broken = plan(env, release(9), world.facts)
    world.run(broken, release(9), kinds(broken).index("boot") + 1)
    deploy(world, release(8))
    assert plan(env, release(8), world.facts).empty
    standing = [c for c in world.facts.hosts["one"].containers if c.slot]
    assert {c.version for c in standing} == {"1.8.0"}
    assert image(release(9)).id not in {i.id for i in world.facts.hosts["one"].images}


def test_image_that_another_environment_uses_is_not_pruned(tmp_path):
    env = environment(tmp_path, {"one": "[web]"})
    world = World(env, bare(env))
    deploy(world, V1)
    host = world.facts.hosts["one"]
    left = image(release(99))
    for used, wanted in ((frozenset[str](), False), (frozenset({left.id}), True)):
        held = replace(host, images=(*host.images, left), used_elsewhere=used)
        assert plan(env, V1, replace(world.facts, hosts={"one": held})).empty is wanted


def test_equal_plans_have_equal_hashes_and_others_do_not(world):
    one = plan(world.environment, V1, world.facts)
    again = plan(world.environment, V1, world.facts)
    other = plan(world.environment, V2, world.facts)
    assert one.hash == again.hash != other.hash
    assert one.canonical() == again.canonical()
    assert b"\n" not in one.canonical() and b": " not in one.canonical()
