"""The time between SIGTERM and SIGKILL, for each kind of container."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock, call

import pytest

from deploy.backups.stopped_containers import containers_stopped
from deploy.environment.model import Environment, load_environment
from deploy.state import containers
from tests.support.planned_world import release

_FILE = """\
domain: api.test
network: {subnet: 172.29.77.0/24}
hosts: [{name: here, connection: local, roles: [web, worker]}]
roles:
  web: {stop_timeout: 11s}
  worker: {command: [work], stop_timeout: 12s}
timeouts: {stop: 13s}
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "trial.yml").write_text(_FILE)
    return load_environment("trial", folder=tmp_path)


def test_a_role_has_its_own(environment: Environment) -> None:
    made = [
        containers.make_slot_container(environment, role, "blue", release(1), "").stop_timeout
        for role in ("web", "worker")
    ]
    assert made == [11, 12]


def test_one_off_containers_share_one(environment: Environment) -> None:
    one_off = containers.make_one_off_container(
        environment, release(1).image, "", purpose="exec", run_id="run", command=("true",)
    )
    assert one_off.stop_timeout == 13


def test_restore_stops_each_role_with_its_own(environment: Environment) -> None:
    host = MagicMock()
    host.engine.containers.return_value = [
        {"Id": role, "State": "running", "Labels": {containers.ROLE: role}}
        for role in ("web", "worker", "proxy")
    ]
    host.read_file.return_value = None
    with containers_stopped(host, environment):
        assert host.engine.stop.call_args_list == [call("web", 11), call("worker", 12)]
