"""Commands besides deploy: status, releases, maintenance, exec, logs, bootstrap and remove."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
import requests

from tests.e2e.conftest import HOSTS
from tests.e2e.trial import Trial, invoke
from workshop.fleet.fleet import Fleet

VERSION = "1.0.0"


@pytest.fixture(scope="module")
def trial(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Three hosts that serve 1.0.0."""
    standing_fleet.up(HOSTS)
    standing_fleet.reset()
    made = Trial(standing_fleet, tmp_path_factory.mktemp("environments"))
    made.publish(VERSION)
    first = ask(made, "deploy", f"--version={VERSION}")
    assert first.status == 0, first.errors
    yield made
    made.close()


def ask(trial: Trial, task: str, *arguments: str, **changes):
    environ = trial.environment(**changes)
    before, rest = (arguments, ()) if "--" not in arguments else split(arguments)
    return invoke(task, f"--env={trial.fleet.name}", *before, *rest, environ=environ)


def split(arguments):
    at = arguments.index("--")
    return arguments[:at], arguments[at:]


def get(trial: Trial, path: str) -> requests.Response:
    return requests.get(f"http://{trial.hosts[0].address}{path}", timeout=10)


def test_status_lists_every_container_and_no_drift(trial: Trial) -> None:
    outcome = ask(trial, "status", "--json")
    assert outcome.status == 0, outcome.errors
    lines = [json.loads(line) for line in outcome.output.splitlines()]
    rows = lines[0]["rows"]
    assert {(row["host"], row["role"], row["version"]) for row in rows} == {
        ("host1", "web", VERSION),
        ("host2", "web", VERSION),
        ("host3", "web", VERSION),
        ("host3", "worker", VERSION),
    }
    assert {row["traffic"] for row in rows if row["role"] == "web"} == {"live"}
    assert len(lines) == 1, "no warning about drift"


def test_status_reports_a_manually_stopped_worker(trial: Trial) -> None:
    name = f"amani-{trial.fleet.name}-worker-blue"
    trial.hosts[2].run(["docker", "stop", name])
    try:
        assert "host3: no worker runs" in ask(trial, "status").text
    finally:
        trial.hosts[2].run(["docker", "start", name])


def test_releases_lists_the_outcome_and_the_operator_of_each_release(trial: Trial) -> None:
    outcome = ask(trial, "releases", "--json")
    (row,) = json.loads(outcome.output.splitlines()[0])["rows"]
    assert (row["version"], row["outcome"], row["kind"]) == (VERSION, "succeeded", "deploy")
    assert row["by"]


def test_maintenance_answers_503_and_does_not_change_the_slots(trial: Trial) -> None:
    before = trial.state()
    try:
        assert ask(trial, "maintenance.on").status == 0
        answer = get(trial, "/api/v1/ping")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "maintenance is on" in ask(trial, "status").text
    finally:
        assert ask(trial, "maintenance.off").status == 0
    assert get(trial, "/api/v1/ping").status_code == 200
    assert trial.state() == before


def test_exec_runs_in_the_live_image_and_leaves_no_container(trial: Trial) -> None:
    before = trial.state()
    outcome = ask(trial, "exec", "--", "flask", "db", "current")
    assert (outcome.status, outcome.output.strip()) == (0, "0001 (head)")
    assert ask(trial, "exec", "--", "sh", "-c", "exit 9").status == 9
    assert trial.state() == before


def test_logs_come_only_from_the_requested_role_and_host(trial: Trial) -> None:
    outcome = ask(trial, "logs", "--host=host3", "--role=worker")
    assert outcome.status == 0, outcome.errors
    assert "host3/web" not in outcome.output
    assert ask(trial, "logs", "--host=host9").status == 2


def test_bootstrap_prepares_a_bare_host_and_is_idempotent(trial: Trial) -> None:
    new = f"s{uuid4().hex[:8]}"  # a kept fleet has the user of an earlier run
    hosts = [dict(trial.content["hosts"][0], user=new, roles=["web"])]
    changes = {"hosts": hosts, "directory": f"/var/lib/{new}/deep"}
    assert ask(trial, "host.check", **changes).status == 7
    for _ in range(2):
        outcome = ask(trial, "host.bootstrap", **changes)
        assert outcome.status == 0, outcome.errors
        assert "host1: ready: Docker" in outcome.text
    listed = trial.hosts[0].run(["stat", "-c", "%U %a", changes["directory"]])
    assert listed.strip() == f"{new} 700"


def test_remove_without_a_terminal_requires_auto_confirm(trial: Trial) -> None:
    before = trial.state()
    outcome = ask(trial, "remove")
    assert outcome.status == 2 and "--auto-confirm" in outcome.text
    assert trial.state() == before


def test_remove_leaves_no_container_network_volume_or_file(trial: Trial) -> None:
    outcome = ask(trial, "remove", "--auto-confirm")
    try:
        assert outcome.status == 0, outcome.errors
        for host in trial.hosts:
            assert host.run(["docker", "ps", "-aq"]) == ""
            names = host.run(["docker", "network", "ls", "--format", "{{.Name}}"]).split()
            assert set(names) <= {"bridge", "host", "none"}
            assert host.run(["docker", "volume", "ls", "-q"]) == ""
            assert host.run(["ls", "-A", f"/var/lib/amani/{trial.fleet.name}"]) == ""
    finally:  # the other tests need the release, in any order
        assert ask(trial, "deploy", f"--version={VERSION}").status == 0
