"""Swaps under load: does any request notice?"""

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
"""Three: of two, each would stand by when its turn comes, and nothing would have to boot."""
QUIET = 2.0
"""Seconds of load without a swap, before each and after the last: what swaps are compared with."""


def run(name: str, swaps: int, rate: float, *, light: bool = False) -> dict[str, Any]:
    """Deploy three versions in turn, `swaps` times, under `rate` requests a second; the figures.

    `light` swaps a service that costs next to nothing instead of this checkout's: what is shown
    is then the proxy's and the deployer's doing alone, at rates where the real service would need
    more processors than the machine has.

    A window reaches from the start of a command to its exit. The fleet has one host: its clients
    would not see the others.
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
