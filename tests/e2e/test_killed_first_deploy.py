"""The next deploy repairs a first deploy that was killed at any kind of step."""

from __future__ import annotations

from .operator import Operator, at

KILLS = (
    ("step-started", "proxy"),
    ("step-started", "migrate"),
    ("step-finished", "boot"),
    ("step-finished", "shift"),
    ("step-started", "verify-worker"),
)


def test_the_next_deploy_completes_a_first_deploy_killed_at_any_kind_of_step(
    two_hosts: Operator,
) -> None:
    operator = two_hosts
    operator.deploy("1.0.0")
    for moment, step in KILLS:
        operator.fleet.reset()
        killed = operator.kill("1.0.0", at(moment, step))
        operator.deploy("1.0.0")
        assert operator.find_deviations("1.0.0") == [], f"after a kill at {killed}"
