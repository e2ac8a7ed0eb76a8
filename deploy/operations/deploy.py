"""`invoke deploy`: make a release live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.environment.model import load_environment
from deploy.operations.candidates import build_candidate, find_candidate
from deploy.operations.host_session import open_session
from deploy.operations.planned_run import Result, plan_and_apply
from deploy.planning.schema_changes import Options
from deploy.planning.strategies import choose_strategy
from deploy.planning.strategy import DEFAULTS
from deploy.secrets import load_secrets

if TYPE_CHECKING:
    from deploy.events import Events


def deploy_release(
    name: str,
    events: Events,
    *,
    version: str | None = None,
    dry_run: bool = False,
    hosts: Sequence[str] = (),
    options: Options = DEFAULTS,
) -> Result:
    """Deploy a release to an environment: `version` from its registry, or a build of this checkout.

    If a step fails before the release is verified, all applied steps are reverted. Raises a
    `DeployError`, whose class and exit code name the kind of failure (`deploy.errors`).
    """
    started = time.monotonic()
    environment = load_environment(name, hosts=hosts)
    choose_strategy(environment)  # refuses an unknown one before anything is built
    secrets = load_secrets(environment)
    events.redact = secrets.redact
    with open_session(environment, events) as session:
        session.require_all()
        if version is None:
            candidate = build_candidate(environment, secrets, events)
        else:
            candidate = find_candidate(session, secrets, version)
        plan, applied = plan_and_apply(
            session,
            secrets,
            lambda facts: candidate,
            f"deploy {candidate.release.version}",
            dry_run=dry_run,
            options=options,
        )
    return Result(plan, environment, applied, time.monotonic() - started)
