"""What concerns the host or the environment as a whole: proxy, smoke, journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy import proxy
from deploy.errors import DeployError
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.observe import probe
from deploy.state import journal
from deploy.state.facts import Slot


@dataclass(frozen=True)
class EnsureProxy(Step):
    """Bring the proxy to its configuration: network, files, container; `live` keeps its traffic."""

    kind: ClassVar[str] = "proxy"
    live: Slot | None
    fresh: bool
    """Whether there was none. The revert removes a proxy that this step made and puts back one
    that it changed."""

    def describe(self) -> str:
        return "start the proxy" if self.fresh else "bring the proxy to its configuration"

    def apply(self, run: Run) -> None:
        def note(change: proxy.Change) -> None:
            run.proxy_changes[self.host] = change

        proxy.ensure(run.hosts[self.host], run.environment, live=self.live, note=note)

    def revert(self, run: Run) -> None:
        change = run.proxy_changes.pop(self.host, None)
        if change is not None:
            proxy.revert(run.hosts[self.host], run.environment, change)


@dataclass(frozen=True)
class RecordLive(Step):
    """Write into the proxy's file which slot is live, where a kill came before that."""

    kind: ClassVar[str] = "record-live"
    slot: Slot

    def describe(self) -> str:
        return f"record {self.slot} as live in the proxy's file"

    def apply(self, run: Run) -> None:
        proxy.record_live(run.hosts[self.host], run.environment, self.slot)


@dataclass(frozen=True)
class Smoke(Step):
    """Ask the host through its public route: every smoke path answers, by this very release."""

    kind: ClassVar[str] = "smoke"
    version: str

    def describe(self) -> str:
        return f"smoke through the public route, expecting {self.version}"

    def apply(self, run: Run) -> None:
        for path in run.environment.smoke.paths:
            answer = self._get(run, path)
            if answer.status != 200:
                raise self._error(run, path, answer)
        answer = self._get(run, run.environment.smoke.version_path)
        if answer.status != 200:
            raise self._error(run, run.environment.smoke.version_path, answer)
        body = answer.json()
        field = run.environment.smoke.version_field
        found = body.get(field) if isinstance(body, dict) else None
        if str(found).removeprefix("v") != self.version:
            raise DeployError(
                f"{self.host}: {run.environment.smoke.version_path} names version {found!r} and "
                f"not {self.version!r}",
                hint="something else answers on the public route: look at `invoke status`",
                host=self.host,
            )

    def _get(self, run: Run, path: str) -> probe.Answer:
        return run.ask(self.host, path, timeout=run.environment.smoke.timeout)

    def _error(self, run: Run, path: str, answer: probe.Answer) -> DeployError:
        said = run.redact(answer.body[:500].decode(errors="replace")) or answer.error
        return DeployError(
            f"{self.host}: {path} through the public route answered "
            f"{answer.status or 'nothing'}: {said}",
            hint=f"`invoke logs --env={run.environment.name} --host={self.host}` shows more",
            host=self.host,
        )


@dataclass(frozen=True)
class Record(Step):
    """Write the run into the host's journal."""

    kind: ClassVar[str] = "record"

    def describe(self) -> str:
        return "write the journal"

    def apply(self, run: Run) -> None:
        outcome = "incomplete" if run.progress.leftovers else "succeeded"
        host = run.hosts[self.host]
        journal.append(host, run.environment.folder, run.record(outcome))
