"""Steps on a host's images and secrets: pull, deliver, and prune the old ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy import secrets
from deploy.execute.plan import Step
from deploy.execute.run import Run
from deploy.state import containers


@dataclass(frozen=True)
class Pull(Step):
    """Pull an image, the release's by its digest or the proxy's by its tag."""

    kind: ClassVar[str] = "pull"
    repository: str
    digest: str

    def describe(self) -> str:
        return f"pull {self.repository} {self.digest[:19]}"

    def apply(self, run: Run) -> None:
        def progress(done: int, known: int) -> None:
            run.events.emit(
                "step-progress",
                host=self.host,
                step=self.kind,
                data={"done": done, "total": known},
            )

        run.hosts[self.host].engine.pull(
            self.repository,
            self.digest,
            credentials=run.secrets.registry(self.repository),
            progress=progress,
            timeout=run.environment.timeouts.pull,
        )


@dataclass(frozen=True)
class DeliverSecrets(Step):
    """Deliver a new generation of secrets to the host; earlier generations do not change."""

    kind: ClassVar[str] = "deliver-secrets"

    def describe(self) -> str:
        return "deliver a new generation of secrets"

    def apply(self, run: Run) -> None:
        run.generations[self.host] = secrets.deliver(
            run.hosts[self.host],
            run.environment,
            run.secrets,
            image=run.release.image.reference,
        )


@dataclass(frozen=True)
class Prune(Step):
    """Remove images that exceed the retention, left-over containers and unused secrets."""

    kind: ClassVar[str] = "prune"
    images: tuple[str, ...]
    containers: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    """Generations that are unused when planned; `apply` removes all that are unused then."""

    def describe(self) -> str:
        return (
            f"remove {len(self.images)} images, {len(self.containers)} containers, "
            f"{len(self.secrets)} generations of secrets"
        )

    def apply(self, run: Run) -> None:
        engine = run.hosts[self.host].engine
        for container in self.containers:
            engine.remove(container)
        for image in self.images:
            engine.remove_image(image)
        labels = {containers.ENVIRONMENT: run.environment.name}
        used = {
            found.get("Labels", {}).get(containers.SECRETS, "")
            for found in engine.containers(labels)
        }
        used.add(run.generations.get(self.host, ""))
        secrets.prune(run.hosts[self.host], run.environment, used - {""})
