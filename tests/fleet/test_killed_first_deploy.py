"""A first deploy that is killed anywhere leaves nothing that the next one does not mend."""

from __future__ import annotations

import pytest

from .operator import Operator, at


@pytest.mark.parametrize("moment", ["step-started", "step-finished"])
def test_a_first_deploy_killed_at_any_kind_of_step_is_completed_by_the_next(
    two_hosts: Operator, moment: str
) -> None:
    operator = two_hosts
    operator.deploy("1.0.0")
    for step in ("deliver-secrets", "proxy", "migrate", "boot", "shift", "verify-worker"):
        operator.fleet.reset()
        killed = operator.kill("1.0.0", at(moment, step))
        operator.deploy("1.0.0")
        assert operator.unsettled("1.0.0") == [], f"after a kill at {killed}"
