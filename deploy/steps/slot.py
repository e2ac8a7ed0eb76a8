"""A release in a slot: boot it, see it ready, give it the traffic, retire the one before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from deploy import proxy
from deploy.errors import DeployError, EngineError
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.state import containers
from deploy.state.facts import Role, Slot

_POLL = 0.1
_STEADY = 1.0
"""Seconds that a worker must run to count as started."""
_WATCH = 2.0
"""Seconds that one question to the proxy may wait before the run looks for an interrupt."""


@dataclass(frozen=True)
class Boot(Step):
    """Start the release in an idle slot: the container kept there where it is the same."""

    kind: ClassVar[str] = "boot"
    role: Role
    slot: Slot

    def describe(self) -> str:
        return f"boot {self.role} in {self.slot}"

    def apply(self, run: Run) -> None:
        engine = run.hosts[self.host].engine
        spec = containers.slot_container(
            run.environment,
            self.role,
            self.slot,
            run.release,
            run.generations.get(self.host, ""),
        )
        standing = engine.inspect(spec.name)
        if standing is not None:
            made_from = (standing["Config"]["Labels"] or {}).get(containers.CONFIG)
            same = made_from == spec.labels[containers.CONFIG]
            if same and standing["State"]["Status"] in ("running", "exited", "created"):
                engine.start(spec.name)
                return
            engine.remove(spec.name)
        # A host without a proxy has no network before its first container.
        labels = {containers.ENVIRONMENT: run.environment.name}
        engine.ensure_network(spec.network, run.environment.network.subnet, labels)
        engine.create(spec)
        engine.start(spec.name)

    def revert(self, run: Run) -> None:
        name = containers.slot_name(run.environment, self.role, self.slot)
        if self.role == "web" and _gets_traffic(run, self.host, self.slot):
            raise DeployError(
                f"{self.host}: {name} still gets the traffic, so it was left running",
                host=self.host,
            )
        run.hosts[self.host].engine.remove(name)


def _proxy_runs(run: Run, host: str) -> bool:
    found = run.hosts[host].engine.inspect(proxy.container_name(run.environment))
    return found is not None and bool(found["State"]["Running"])


def _gets_traffic(run: Run, host: str, slot: Slot) -> bool:
    """Whether the proxy sends requests to a slot: where the way back to the other one failed."""
    if not _proxy_runs(run, host):
        return False
    engine, name = run.hosts[host].engine, proxy.container_name(run.environment)
    server = proxy.read_servers(engine, name).get(slot)
    return server is not None and server.up and server.state == "ready"


def _container_tail(run: Run, host: str, role: Role, slot: Slot) -> str:
    name = containers.slot_name(run.environment, role, slot)
    try:
        return run.redact(run.hosts[host].engine.logs(name, tail=15).strip())
    except DeployError:
        return ""


def _check_running(run: Run, host: str, role: Role, slot: Slot) -> None:
    """Raise, with the last lines of its log, where the container does not run."""
    name = containers.slot_name(run.environment, role, slot)
    found = run.hosts[host].engine.inspect(name)
    state = found["State"] if found else {"Status": "gone", "ExitCode": "?"}
    if state["Status"] == "running" and not found["RestartCount"]:  # type: ignore[index]
        return
    raise DeployError(
        f"{host}: {name} stopped by itself with exit code {state['ExitCode']}; it printed last:\n"
        f"{_container_tail(run, host, role, slot)}",
        hint="the release cannot start here: mend it, or its settings and secrets",
        host=host,
    )


@dataclass(frozen=True)
class Verify(Step):
    """Wait until the proxy's own health check finds the slot up, before it gets any traffic.

    A `standby` is watched by the proxy all the time: it only has to answer once more.
    """

    kind: ClassVar[str] = "verify"
    slot: Slot
    standby: bool = False

    def describe(self) -> str:
        return f"wait until the proxy sees {self.slot} up"

    def apply(self, run: Run) -> None:
        engine = run.hosts[self.host].engine
        name = proxy.container_name(run.environment)
        if self.standby and proxy.is_ready(run.hosts[self.host], run.environment, self.slot):
            return
        timeout = run.environment.timeouts.boot
        deadline = time.monotonic() + timeout
        fresh = True
        while True:
            run.check_cancelled()
            wait = min(_WATCH, max(0.0, deadline - time.monotonic()))
            seen = proxy.wait_until_up(engine, name, self.slot, wait, fresh=fresh)
            if seen.up:
                return
            _check_running(run, self.host, "web", self.slot)
            if time.monotonic() >= deadline:
                break
            fresh = False
        raise DeployError(
            f"{self.host}: {self.slot} was not ready within {timeout:g} s; the proxy's last health "
            f"check: {seen.check or 'none has ended'}; its container printed last:\n"
            f"{_container_tail(run, self.host, 'web', self.slot)}",
            hint=f"GET {run.environment.health.path} must answer 200 within timeouts.boot; "
            "the release's health route says what it misses",
            host=self.host,
        )

    def revert(self, run: Run) -> None:
        if not self.standby and _proxy_runs(run, self.host):
            engine = run.hosts[self.host].engine
            proxy.set_state(engine, proxy.container_name(run.environment), self.slot, "maint")


@dataclass(frozen=True)
class VerifyWorker(Step):
    """Watch a worker: its image's own health check must pass; without one it must run a while."""

    kind: ClassVar[str] = "verify-worker"
    slot: Slot
    role: Role = "worker"

    def describe(self) -> str:
        return f"wait until {self.role} in {self.slot} is steady"

    def apply(self, run: Run) -> None:
        name = containers.slot_name(run.environment, self.role, self.slot)
        started = time.monotonic()
        deadline = started + run.environment.timeouts.boot
        while True:
            _check_running(run, self.host, self.role, self.slot)
            verdict = self._ask(run, name)
            if verdict == "" or (verdict is None and time.monotonic() >= started + _STEADY):
                return
            if not run.pause(_POLL, deadline):
                raise DeployError(
                    f"{self.host}: {name} is not healthy after {run.environment.timeouts.boot:g} s "
                    f"({verdict}); it printed last:\n"
                    f"{_container_tail(run, self.host, self.role, self.slot)}",
                    host=self.host,
                )

    def _ask(self, run: Run, name: str) -> str | None:
        """Run the container's health check now: empty where it passes, None where it has none.

        The engine itself would run it for the first time only after its interval.
        """
        engine = run.hosts[self.host].engine
        config = (engine.inspect(name) or {}).get("Config", {}).get("Healthcheck") or {}
        kind, *words = config.get("Test") or ["NONE"]
        if kind not in ("CMD", "CMD-SHELL"):
            return None
        argv = words if kind == "CMD" else ["sh", "-c", *words]
        try:
            result = engine.run_in(name, argv)
        except EngineError as error:
            return error.message
        return "" if result.status == 0 else result.output.strip() or f"status {result.status}"


@dataclass(frozen=True)
class Shift(Step):
    """Move the traffic to a slot, in the running proxy first and then in its file."""

    kind: ClassVar[str] = "shift"
    to: Slot
    old: Slot | None

    def describe(self) -> str:
        return f"shift traffic from {self.old or 'nothing'} to {self.to}"

    def apply(self, run: Run) -> None:
        proxy.shift(run.hosts[self.host], run.environment, to=self.to, old=self.old)

    def revert(self, run: Run) -> None:
        host = run.hosts[self.host]
        if not _proxy_runs(run, self.host):
            proxy.record_live(host, run.environment, self.old)
            return
        if self.old is None:
            proxy.close(host, run.environment)
            return
        proxy.shift(host, run.environment, to=self.old, old=self.to)
        _drain(run, self.host, self.to)


@dataclass(frozen=True)
class Drain(Step):
    """Wait until the slot serves nothing any more, or the drain timeout has passed."""

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
                f"{run.environment.timeouts.drain:g} s; they have until it is stopped",
                host=self.host,
                step=self.kind,
            )


def _drain(run: Run, host: str, slot: Slot) -> int:
    """Wait for a slot to serve nothing; returns the requests that are left at the timeout."""
    engine, name = run.hosts[host].engine, proxy.container_name(run.environment)
    deadline = time.monotonic() + run.environment.timeouts.drain
    while True:
        wait = min(_WATCH, max(0.0, deadline - time.monotonic()))
        left = proxy.wait_drained(engine, name, slot, wait)
        if not left or time.monotonic() >= deadline:
            return left
        run.check_cancelled()


@dataclass(frozen=True)
class Retire(Step):
    """Stop the container that served before; it is kept, stopped, for a quick way back."""

    kind: ClassVar[str] = "retire"
    role: Role
    slot: Slot

    def describe(self) -> str:
        return f"stop {self.role} in {self.slot}, keep it for a rollback"

    def apply(self, run: Run) -> None:
        engine = run.hosts[self.host].engine
        if self.role == "web":
            proxy.set_state(engine, proxy.container_name(run.environment), self.slot, "maint")
        engine.stop(
            containers.slot_name(run.environment, self.role, self.slot),
            run.environment.role(self.role).stop_timeout,
        )
