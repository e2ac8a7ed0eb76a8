"""Check a restored database with the image of the live release."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets as entropy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from deploy import secrets
from deploy.errors import DeployError, GateRefused
from deploy.operations.backup_context import BackupContext
from deploy.state import containers
from deploy.state.release import ImageRef

if TYPE_CHECKING:
    from deploy.secrets.secret import Secret
    from deploy.state.facts import ContainerFacts

_Wait = Callable[[BackupContext, str, str], None]


def check_restored_database(context: BackupContext, url: Secret, *, boot: bool) -> None:
    """Run `backups.check_command` of the live image on a restored database.

    With `boot` also start the service on it and wait until it is ready. Without a live release
    nothing is checked and a warning is emitted. Raises `DeployError` if the check or the start
    fails, and `GateRefused` for `boot` without a live release.
    """
    live = context.live.get(context.host.name) or next(iter(context.live.values()), None)
    if live is None:
        if boot:
            raise GateRefused(
                "there is no live release, so the service cannot start on the restored database",
                hint=f"invoke deploy --env={context.environment.name}",
            )
        context.events.emit(
            "warning",
            "there is no live release, so its check did not run on the restored database",
        )
        return
    with _image_on(context, live, url) as run:
        if context.environment.backups.check_command:
            run(context.environment.backups.check_command, _await_end)
        if boot:
            run(context.environment.role("web").command, _await_readiness)


@contextlib.contextmanager
def _image_on(
    context: BackupContext, live: ContainerFacts, url: Secret
) -> Iterator[Callable[[tuple[str, ...] | None, _Wait], None]]:
    """Yield a function that runs a command of the live image with `url` as its database."""
    environment, host = context.environment, context.host
    values = secrets.Secrets({**context.secrets.values, environment.backups.secret: url})
    image = ImageRef(
        environment.image.repository, live.digest, registered=environment.image.registered
    )
    before = secrets.list_generations(host, environment, values)[1]
    generation = secrets.deliver(host, environment, values, image=image.reference)

    def run(command: tuple[str, ...] | None, wait: _Wait) -> None:
        spec = containers.make_one_off_container(
            environment,
            image,
            generation,
            purpose="examine",
            run_id=entropy.token_hex(3),
            command=command or (),
        )
        spec = dataclasses.replace(spec, command=command)
        container = host.engine.create(spec)
        try:
            host.engine.start(container)
            wait(context, container, spec.name)
        finally:
            host.engine.remove(container)

    try:
        yield run
    finally:
        secrets.prune(host, environment, set(before))


def _await_end(context: BackupContext, container: str, name: str) -> None:
    engine, backups = context.host.engine, context.environment.backups
    status = engine.wait(container, backups.timeout)
    if status:
        output = context.events.redact(engine.logs(container, tail=20)).strip()
        command = " ".join(backups.check_command)
        raise DeployError(
            f"{context.host.name}: `{command}` on the restored database failed with status"
            f" {status}:\n{output}",
            hint="the live database may have the same fault: run the command there, too",
            host=context.host.name,
        )


def _await_readiness(context: BackupContext, container: str, name: str) -> None:
    health = context.environment.health
    url = f"http://{name}:{health.port}{health.path}"
    seconds = context.environment.timeouts.boot
    context.container.run("await-ready", seconds=seconds + 60, page=url, patience=seconds)
