"""Light load on the public routes of web hosts, kept-alive and one connection a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from deploy.bench.generator import Load, load
from deploy.bench.load import Profile


class Traffic:
    """What the clients of each host saw; complete once the `with` block has ended."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}

    def add(self, host: str, running: Load) -> None:
        """Take in the load on one host."""
        self._loads[host] = running

    @property
    def requests(self) -> dict[str, int]:
        """How many requests each host got."""
        return {host: len(made.records.starts) for host, made in self._loads.items()}

    @property
    def failures(self) -> dict[str, dict[str, int]]:
        """Failed requests by host and kind; hosts without any are left out."""
        found = {host: made.records.failures for host, made in self._loads.items()}
        return {host: kinds for host, kinds in found.items() if kinds}


@contextmanager
def traffic(addresses: dict[str, str], name: str, *, rate: float = 20.0) -> Iterator[Traffic]:
    """Ask every host for as long as the block lasts; one request a second takes half of one."""
    seen = Traffic()
    with ExitStack() as stack:
        for host, address in addresses.items():
            profile = Profile(
                address=address,
                port=80,
                host=name,
                rate=rate,
                slow_path="/api/v1/ping?delay_ms=500",
                connections=8,
                fresh=0.5,
                timeout=30.0,
                seconds=1800.0,
            )
            seen.add(host, stack.enter_context(load(profile)))
        yield seen
