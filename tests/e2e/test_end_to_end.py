"""Deploy, upgrade, repeat and roll back on practice hosts."""

from __future__ import annotations

from deploy.operations.status import find_drift

from .operator import Operator


def test_releases_deploy_and_roll_back_on_three_hosts(operator: Operator) -> None:
    web = ("host1", "host2", "host3")

    first = operator.deploy("1.0.0")
    assert operator.versions() == dict.fromkeys(web, "1.0.0")
    assert [host for host, step in first.steps if step == "migrate"] == ["host1"]

    second = operator.deploy("2.0.0")
    assert operator.versions() == dict.fromkeys(web, "2.0.0")
    assert not [step for _, step in second.steps if step in ("migrate", "proxy")]
    assert sorted(second.done()) == sorted(second.steps)

    before, files = operator.containers(), operator.files()
    again = operator.deploy("2.0.0")
    assert again.plan["stages"] == []
    assert again.events[-1]["text"].endswith("is already on 2.0.0: nothing to do")
    assert (operator.containers(), operator.files()) == (before, files)

    assert [
        (row["version"], row["kept"]) for row in operator.run("rollback").events[-1]["rows"]
    ] == [("2.0.0", "live"), ("1.0.0", "container")]

    back = operator.run("rollback", "--version=1.0.0", "--auto-confirm")
    assert back.status == 0, back.errors
    assert operator.versions() == dict.fromkeys(web, "1.0.0")
    assert not [step for _, step in back.steps if step in ("pull", "migrate", "proxy")]
    kept = {name: started for name, started in before.items() if "worker" not in name}
    assert kept.items() <= operator.containers().items(), "the standby serves; none is started"
    assert set(operator.containers()) == set(before), "no container is created"

    assert [
        (row["kind"], row["version"], row["outcome"], row["instead of"])
        for row in operator.run("releases").events[-1]["rows"]
    ] == [
        ("rollback", "1.0.0", "succeeded", "2.0.0"),
        ("deploy", "2.0.0", "succeeded", "1.0.0"),
        ("deploy", "1.0.0", "succeeded", ""),
    ]
    assert list(find_drift(operator.facts())) == []


def test_web_hosts_and_a_worker_host_run_only_their_roles(operator: Operator) -> None:
    operator.fleet.up(3, web=[1, 2], workers=[3])
    operator.deploy("1.0.0")
    operator.deploy("2.0.0")
    assert operator.versions() == {"host1": "2.0.0", "host2": "2.0.0"}
    running = {
        (found.name, found.version)
        for host in operator.facts().hosts.values()
        for found in host.containers
        if found.running and found.slot
    }
    name = f"amani-{operator.name}"
    assert running == {
        (f"{name}-web-green", "2.0.0"),
        (f"{name}-web-blue", "1.0.0"),  # the standby, for a quick rollback
        (f"{name}-worker-green", "2.0.0"),
    }
    assert {key for key in operator.containers() if key.startswith("host3/")} == {
        f"host3/{name}-worker-{slot}" for slot in ("blue", "green")
    }
    assert list(find_drift(operator.facts())) == []
