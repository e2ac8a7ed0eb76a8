"""What concerns the host or the environment as a whole: proxy, schema, smoke, journal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from deploy import containers, journal, probe, proxy
from deploy.errors import DeployError, EngineError
from deploy.facts import Slot
from deploy.plan import Step
from deploy.run import Run


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
class Migrate(Step):
    """Bring the schema to the release's head, once, in a one-off container of its image.

    There is no revert: migrations only expand, so the release before runs on the newer schema.
    """

    kind: ClassVar[str] = "migrate"
    head: str

    def describe(self) -> str:
        return f"migrate the database to {self.head}"

    def apply(self, run: Run) -> None:
        config = run.environment.migrations
        self._let_others_end(run)
        self._run(run, "migrate", config.command)
        revision = self._run(run, "revision", config.current_command)
        # An exit status of 0 proves nothing: only the revision read back does.
        if self.head not in revision.split():
            raise DeployError(
                f"{self.host}: the migration ended without an error, but the database is at "
                f"{revision.strip() or 'no revision'} and not at {self.head}",
                hint="run `flask db current` with the release's image and look at its migrations",
                host=self.host,
            )

    def _let_others_end(self, run: Run) -> None:
        """Wait for the migration of a run that was killed: two at once would collide."""
        engine = run.hosts[self.host].engine
        labels = {containers.ENVIRONMENT: run.environment.name, containers.ONE_OFF: "migrate"}
        for left in engine.containers(labels):
            if left["State"] == "running":
                self._wait(run, left["Id"])
            engine.remove(left["Id"])

    def _run(self, run: Run, purpose: str, command: tuple[str, ...]) -> str:
        engine = run.hosts[self.host].engine
        spec = containers.one_off_container(
            run.environment,
            run.release.image,
            run.generations.get(self.host, ""),
            purpose=purpose,
            run_id=run.id,
            command=command,
        )
        engine.remove(spec.name)
        container = engine.create(spec)
        try:
            engine.start(container)
            status = self._wait(run, container)
            output = run.redact(engine.logs(container, tail=200))
        finally:
            engine.remove(container)
        if status:
            tail = "\n".join(output.strip().splitlines()[-15:])
            raise DeployError(
                f"{self.host}: `{' '.join(command)}` failed with status {status}:\n{tail}",
                hint="the release before serves on; mend the migration or the database and "
                "deploy again",
                host=self.host,
            )
        return output

    def _wait(self, run: Run, container: str) -> int:
        engine = run.hosts[self.host].engine
        deadline = time.monotonic() + run.environment.timeouts.migrate
        while True:
            found = engine.inspect(container)
            if found is None:
                raise EngineError(f"{self.host}: the one-off container vanished", host=self.host)
            if found["State"]["Status"] in ("exited", "dead"):
                return int(found["State"]["ExitCode"])
            if not run.pause(0.1, deadline):
                raise DeployError(
                    f"{self.host}: `migrate` took longer than "
                    f"{run.environment.timeouts.migrate:g} s and was stopped",
                    hint="raise timeouts.migrate, or look for what blocks it in the database",
                    host=self.host,
                )


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
