"""The smoke test of a deploy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy.errors import DeployError
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.observe import probe


@dataclass(frozen=True)
class Smoke(Step):
    """Request every smoke path through the host's public route and compare the version."""

    kind: ClassVar[str] = "smoke"
    version: str

    def describe(self) -> str:
        return f"smoke test through the public route, expecting {self.version}"

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
                f"{self.host}: {run.environment.smoke.version_path} returned version {found!r}, "
                f"expected {self.version!r}",
                hint="another release answers on the public route: see `invoke status`",
                host=self.host,
            )

    def _get(self, run: Run, path: str) -> probe.Answer:
        return run.ask(self.host, path, timeout=run.environment.smoke.timeout)

    def _error(self, run: Run, path: str, answer: probe.Answer) -> DeployError:
        shown = run.redact(answer.body[:500].decode(errors="replace")) or answer.error
        return DeployError(
            f"{self.host}: {path} through the public route returned "
            f"{answer.status or 'no answer'}: {shown}",
            hint=f"`invoke logs --env={run.environment.name} --host={self.host}` shows more",
            host=self.host,
        )
