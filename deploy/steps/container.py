"""Steps on the container in a slot: boot it, verify that it is ready, retire it."""

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
"""Seconds that a worker without a health check must run to count as started."""


@dataclass(frozen=True)
class Boot(Step):
    """Start the release in an idle slot, in the container that is kept there if it is the same."""

    kind: ClassVar[str] = "boot"
    needs_smoke: ClassVar[bool] = True
    role: Role
    slot: Slot

    def describe(self) -> str:
        return f"boot {self.role} in {self.slot}"

    def apply(self, run: Run) -> None:
        engine = run.hosts[self.host].engine
        spec = containers.make_slot_container(
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
                f"{self.host}: {name} still gets traffic, so it was left running",
                host=self.host,
            )
        run.hosts[self.host].engine.remove(name)


def _gets_traffic(run: Run, host: str, slot: Slot) -> bool:
    """Whether the proxy sends requests to a slot, as it does if reverting a shift failed."""
    if not proxy.is_running(run.hosts[host], run.environment):
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
    """Check that a slot's container runs.

    Raises `DeployError` with the last lines of its log if it does not.
    """
    name = containers.slot_name(run.environment, role, slot)
    found = run.hosts[host].engine.inspect(name)
    state = found["State"] if found else {"Status": "missing", "ExitCode": "?"}
    if state["Status"] == "running" and not found["RestartCount"]:  # type: ignore[index]
        return
    raise DeployError(
        f"{host}: {name} stopped with exit code {state['ExitCode']}; its last output:\n"
        f"{_container_tail(run, host, role, slot)}",
        hint="the release cannot start here: fix the release, or its settings and secrets",
        host=host,
    )


@dataclass(frozen=True)
class Verify(Step):
    """Wait until the proxy's health check finds the slot up, before it gets traffic.

    The proxy checks a `standby` all the time, so that one only has to answer once more.
    """

    kind: ClassVar[str] = "verify"
    slot: Slot
    standby: bool = False

    def describe(self) -> str:
        return f"wait until the proxy finds {self.slot} up"

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
            wait = min(proxy.PATIENCE, max(0.0, deadline - time.monotonic()))
            seen = proxy.wait_until_up(engine, name, self.slot, wait, fresh=fresh)
            if seen.up:
                return
            _check_running(run, self.host, "web", self.slot)
            if time.monotonic() >= deadline:
                break
            fresh = False
        raise DeployError(
            f"{self.host}: {self.slot} was not ready within {timeout:g} s; the proxy's last health "
            f"check: {seen.check or 'none has ended'}; the container's last output:\n"
            f"{_container_tail(run, self.host, 'web', self.slot)}",
            hint=f"GET {run.environment.health.path} must answer 200 within timeouts.boot; "
            "its answer names what is missing",
            host=self.host,
        )

    def revert(self, run: Run) -> None:
        if not self.standby and proxy.is_running(run.hosts[self.host], run.environment):
            engine = run.hosts[self.host].engine
            proxy.set_state(engine, proxy.container_name(run.environment), self.slot, "maint")


@dataclass(frozen=True)
class VerifyWorker(Step):
    """Wait until the health check of a worker's image passes.

    A worker without a health check must run for one second.
    """

    kind: ClassVar[str] = "verify-worker"
    slot: Slot
    role: Role = "worker"

    def describe(self) -> str:
        return f"wait until {self.role} in {self.slot} is healthy"

    def apply(self, run: Run) -> None:
        name = containers.slot_name(run.environment, self.role, self.slot)
        started = time.monotonic()
        deadline = started + run.environment.timeouts.boot
        while True:
            _check_running(run, self.host, self.role, self.slot)
            verdict = self._run_check(run, name)
            if verdict == "" or (verdict is None and time.monotonic() >= started + _STEADY):
                return
            if not run.pause(_POLL, deadline):
                raise DeployError(
                    f"{self.host}: {name} is not healthy after {run.environment.timeouts.boot:g} s "
                    f"({verdict}); its last output:\n"
                    f"{_container_tail(run, self.host, self.role, self.slot)}",
                    host=self.host,
                )

    def _run_check(self, run: Run, name: str) -> str | None:
        """Run the container's health check now, as the engine waits for one interval first.

        Returns its output if it fails, an empty text if it passes, and None if there is no check.
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
class Retire(Step):
    """Stop the previous release's container and keep it for a rollback."""

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
