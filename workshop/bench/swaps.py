"""Deploys under load: failed requests and latencies."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.environment.model import Environment
from deploy.machine.checkout import ROOT
from workshop.bench import practice_releases
from workshop.bench.load_generator import Profile
from workshop.bench.load_run import Window, load

LIGHT = Path(__file__).with_name("light")
VERSIONS = ("0.0.1-bench", "0.0.2-bench", "0.0.3-bench")
"""Three: with two, each would be the standby when it is deployed, and no container would boot."""
QUIET = 2.0
"""Seconds of load without a deploy, before each and after the last, for comparison."""


def run(name: str, swaps: int, rate: float, *, light: bool = False) -> dict[str, Any]:
    """Deploy three versions in turn, `swaps` times, under `rate` requests per second.

    Returns the figures as JSON values. `light` deploys a minimal service, not this checkout's: it
    shows the effect of proxy and deployer at rates that need more processors with the real
    service than the machine has.

    A window lasts from the start of a command to its exit. The fleet has one host, since a client
    uses only one.
    """
    with practice_releases.practice_fleet(name, hosts=1) as environment:
        practice_releases.publish(environment, VERSIONS, LIGHT if light else ROOT)
        practice_releases.deploy_version(name, VERSIONS[0])
        profile = replace(Profile("", 0), rate=rate, **_target(environment))
        windows: list[Window] = []
        with load(profile) as running:
            for number in range(swaps):
                time.sleep(QUIET)
                outcome = practice_releases.deploy_version(
                    name, VERSIONS[(number + 1) % len(VERSIONS)]
                )
                windows.append((outcome.started, outcome.started + outcome.seconds))
            time.sleep(QUIET)
        return {
            "service": "light" if light else "amani",
            "swaps": swaps,
            "swap_seconds_median": round(statistics.median(b - a for a, b in windows), 2),
            "wanted_rate": rate,
            **running.records.summary(windows),
        }


def _target(environment: Environment) -> dict[str, Any]:
    return {
        "address": environment.hosts[0].address,
        "port": environment.proxy.http_port,
        "host": environment.domain,
    }
