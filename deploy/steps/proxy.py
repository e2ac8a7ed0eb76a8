"""Steps on the proxy of a host: its container, its traffic and the file that persists both."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from deploy import proxy
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.state.facts import Slot, full_share


@dataclass(frozen=True)
class EnsureProxy(Step):
    """Bring the proxy's network, files and container to its settings.

    `live` is the slot that gets the traffic if the proxy starts; a running one keeps its traffic.
    The revert removes a proxy that this step created and restores one that it changed.
    """

    kind: ClassVar[str] = "proxy"
    live: Slot | None
    fresh: bool
    """Whether there was no proxy before."""

    def describe(self) -> str:
        return "start the proxy" if self.fresh else "apply the proxy's configuration"

    def apply(self, run: Run) -> None:
        def note(change: proxy.ProxyChange) -> None:
            run.proxy_changes[self.host] = change

        proxy.ensure(run.hosts[self.host], run.environment, live=self.live, note=note)

    def revert(self, run: Run) -> None:
        change = run.proxy_changes.pop(self.host, None)
        if change is not None:
            proxy.revert(run.hosts[self.host], run.environment, change)


@dataclass(frozen=True)
class RecordLive(Step):
    """Write the live slot into the proxy's file, if a killed run shifted and did not record it."""

    kind: ClassVar[str] = "record-live"
    slot: Slot

    def describe(self) -> str:
        return f"record {self.slot} as live in the proxy's file"

    def apply(self, run: Run) -> None:
        proxy.record_weights(run.hosts[self.host], run.environment, full_share(self.slot))


@dataclass(frozen=True)
class Shift(Step):
    """Move the traffic to a slot, first in the running proxy and then in its file."""

    kind: ClassVar[str] = "shift"
    needs_smoke: ClassVar[bool] = True
    to: Slot
    old: Slot | None

    def describe(self) -> str:
        return f"shift traffic from {self.old or 'nothing'} to {self.to}"

    def apply(self, run: Run) -> None:
        proxy.shift(run.hosts[self.host], run.environment, to=self.to)

    def revert(self, run: Run) -> None:
        host = run.hosts[self.host]
        if not proxy.is_running(host, run.environment):
            proxy.record_weights(host, run.environment, full_share(self.old))
            return
        if self.old is None:
            proxy.close(host, run.environment)
            return
        proxy.shift(host, run.environment, to=self.old)
        _drain(run, self.host, self.to)


@dataclass(frozen=True)
class Drain(Step):
    """Wait until the slot serves no request, at most `timeouts.drain`."""

    kind: ClassVar[str] = "drain"
    slot: Slot

    def describe(self) -> str:
        return f"drain {self.slot}"

    def apply(self, run: Run) -> None:
        left = _drain(run, self.host, self.slot)
        if left:
            run.events.emit(
                "warning",
                f"{self.slot} still serves {left} requests after "
                f"{run.environment.timeouts.drain:g} s; they continue until it is stopped",
                host=self.host,
                step=self.kind,
            )


def _drain(run: Run, host: str, slot: Slot) -> int:
    """Wait until a slot serves no request; return how many are left at the timeout."""
    engine, name = run.hosts[host].engine, proxy.container_name(run.environment)
    deadline = time.monotonic() + run.environment.timeouts.drain
    while True:
        wait = min(proxy.PATIENCE, max(0.0, deadline - time.monotonic()))
        left = proxy.wait_drained(engine, name, slot, wait)
        if not left or time.monotonic() >= deadline:
            return left
        run.check_cancelled()
