"""The next deploy repairs an upgrade killed after any step, and no request fails meanwhile."""

from __future__ import annotations

import itertools

from .operator import Operator, finished
from .traffic import traffic


def test_the_next_deploy_completes_an_upgrade_killed_after_any_step(two_hosts: Operator) -> None:
    operator = two_hosts
    operator.deploy("1.0.0")
    operator.deploy("2.0.0")
    _, plan = operator.observe("1.0.0")
    versions = itertools.cycle(["1.0.0", "2.0.0"])
    with traffic(operator.addresses(), operator.environment.domain) as clients:
        for number, version in zip(range(1, len(list(plan.steps()))), versions, strict=False):
            killed = operator.kill(version, finished(number))
            operator.deploy(version)
            assert operator.find_deviations(version) == [], f"after a kill at {number}: {killed}"
    assert clients.failures == {}, clients.requests
    assert min(clients.requests.values()) > 100
