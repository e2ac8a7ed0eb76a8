"""Failing releases: a clear error, the documented exit code, and the previous release serves.

Every case runs the deployer as an operator does, on hosts that serve 1.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.conftest import HOSTS
from tests.e2e.trial import Outcome, Trial, invoke
from workshop.fleet.fleet import Fleet

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7dVbJc9lrKXXpRUXzVNZ7lWGKgFLBvL0Sr6ZcPEIBY"
QUICK = {"boot": "6s", "connect": "4s", "drain": "2s"}


@dataclass(frozen=True)
class Case:
    """A fault, and the expected result: the exit code and parts of the output."""

    status: int
    says: tuple[str, ...]
    version: str = "1.1.0"
    fault: str = ""
    head: str = "0001"
    changes: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def changed_key(trial: Trial) -> dict[str, Any]:
    hosts = [dict(host) for host in trial.content["hosts"]]
    hosts[1]["host_keys"] = [OTHER_KEY]
    return {"hosts": hosts}


CASES: dict[str, Case] = {
    "container exits at once": Case(
        5, ("host", "cannot open the ledger", "traffic is on the previous release"), fault="exit"
    ),
    "never becomes healthy": Case(
        5, ("blue|green", "6 s", "traffic is on the previous release"), fault="unready"
    ),
    "worker exits at once": Case(5, ("cannot open the queue",), fault="worker"),
    "migration fails": Case(
        5, ("`flask db upgrade 0002` failed with status 1", "cannot alter the table ledger"),
        fault="migration", head="0002",
    ),
    "migration does nothing": Case(
        5, ("ended without an error, but the database is at 0001 and not at 0002",),
        fault="forgetful-migration", head="0002",
    ),
    "smoke fails": Case(5, ("/api/v1/ping", "500"), fault="smoke"),
    "another version answers": Case(5, ("0.0.0",), fault="version"),
    "image not in the registry": Case(2, ("has no image 9.9.9", "it has: "), version="9.9.9"),
    "wrong architecture": Case(
        3, ("wrong architecture: the host is amd64, the image is for linux/arm64",),
        version="1.1.0-arm64",
    ),
    "port taken": Case(
        3, ("port 80 is in use by another process", "nothing was changed"),
        name="neighbour", changes={"network": {"subnet": "172.29.99.0/24"}},
    ),
    "disk nearly full": Case(
        3, ("disk nearly full", "900000.0 GB needed", "nothing was changed"),
        changes={"disk_reserve": "900TB"},
    ),
    "unknown environment": Case(
        2, ("there is no environment 'flet'", "environments: local, "), name="flet"
    ),
    "missing secret": Case(
        2, ("needs secrets that have no value: FINCRA_API_KEY", "AMANI_SECRET_FINCRA_API_KEY"),
        changes={"secrets": ["DATABASE_URL", "SECRET_KEY", "FINCRA_API_KEY"]},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def trial(standing_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Three hosts that serve 1.0.0, and the images of the cases in the registry."""
    standing_fleet.up(HOSTS)
    standing_fleet.reset()
    made = Trial(standing_fleet, tmp_path_factory.mktemp("environments"))
    made.publish("1.0.0")
    made.publish_for_architecture("1.1.0-arm64", "1.0.0", "arm64")
    first = deploy(made, "1.0.0")
    assert first.status == 0, first.errors
    yield made
    made.close()


def deploy(trial: Trial, version: str, name: str = "", **changes: Any) -> Outcome:
    environ = trial.environment("" if name == "flet" else name, timeouts=QUICK, **changes)
    target = name or trial.fleet.name
    return invoke("deploy", f"--env={target}", f"--version={version}", "--json", environ=environ)


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_a_failing_release_leaves_the_previous_one_serving(trial: Trial, case: str) -> None:
    wanted = CASES[case]
    if wanted.version == "1.1.0":
        trial.publish("1.1.0", fault=wanted.fault, head=wanted.head)
    before = trial.state()
    outcome = deploy(trial, wanted.version, wanted.name, **wanted.changes)
    _check(outcome, wanted.status, wanted.says)
    assert trial.state() == before
    assert {version for version, _ in before.values()} == {"1.0.0"}


OUTAGES: dict[str, tuple[Callable[[Trial], dict[str, Any]], tuple[str, ...]]] = {
    "changed host key": (changed_key, ("host2", "host key", "nothing was changed")),
    "unreachable host": (
        lambda trial: trial.hosts[1].pause() or {},  # type: ignore[func-returns-value]
        ("host2", "nothing was changed"),
    ),
}


@pytest.mark.parametrize("case", OUTAGES, ids=[name.replace(" ", "-") for name in OUTAGES])
def test_an_unreachable_host_stops_the_release(trial: Trial, case: str) -> None:
    bring_about, says = OUTAGES[case]
    trial.publish("1.1.0")
    before = trial.state()
    try:
        outcome = deploy(trial, "1.1.0", **bring_about(trial))
    finally:
        trial.hosts[1].heal()
    _check(outcome, 7, says)
    assert trial.state() == before


def _check(outcome: Outcome, status: int, says: tuple[str, ...]) -> None:
    assert outcome.status == status, outcome.errors
    for part in says:
        assert any(choice in outcome.text for choice in part.split("|")), (part, outcome.errors)
    assert "Traceback" not in outcome.text
    last = json.loads(outcome.output.splitlines()[-1])
    assert (last["kind"], last["exit_code"]) == ("error", status)
    assert outcome.errors.startswith("error: ")
