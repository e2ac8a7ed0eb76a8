"""Connections to the hosts of an environment, open for the time of one operation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.errors import DeployError, HostUnreachable
from deploy.events import Events
from deploy.execute import interrupts
from deploy.hosts.connect import connect_all
from deploy.observe import orphaned_migrations, survey

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host
    from deploy.secrets import Secrets
    from deploy.state.facts import Facts


@dataclass(frozen=True)
class HostSession:
    """The open hosts of an environment by name, in its order.

    `errors` holds the reason for each selected host that could not be opened.
    """

    environment: Environment
    hosts: Mapping[str, Host]
    errors: Mapping[str, DeployError]
    events: Events
    lock_host: Host | None = None
    """The host that holds the lock; it need not be among those selected."""

    def facts(self, wanted: Secrets | None = None) -> Facts:
        """Observe every host; those that could not be opened are in `Facts.unreachable`."""
        found = survey.gather(self.environment, self.hosts, wanted)
        for name, error in self.errors.items():
            found.unreachable[name] = error.message
        return found

    def settled_facts(self, wanted: Secrets | None, check: Callable[[], None]) -> Facts:
        """Return the facts after every migration of an earlier, killed run has ended.

        Call it only under the lock; `check` raises if the lock is lost. Raises `Locked` if a
        migration does not end.
        """
        found = self.facts(wanted)
        left = [
            name for name, facts in found.hosts.items() if orphaned_migrations.has_migration(facts)
        ]

        def pause() -> None:
            check()
            time.sleep(0.2)

        for name in left:
            orphaned_migrations.await_end(self.hosts[name], self.environment, self.events, pause)
        return self.facts(wanted) if left else found

    def run_on(self, hosts: Sequence[Host], action: Callable[[Host], object]) -> None:
        """Run an action on several hosts at the same time; raise the first error after all end."""
        for result in survey.call_on_all(hosts, action).values():
            if isinstance(result, DeployError):
                raise result

    def require_all(self) -> None:
        """Raise one `HostUnreachable` that names every host that could not be opened."""
        if not self.errors:
            return
        errors = list(self.errors.values())
        worst = errors[0] if len(errors) == 1 else None
        raise HostUnreachable(
            "cannot connect to every host; nothing was changed:\n"
            + "\n".join(f"- {error.message}" for error in errors),
            hint=(
                worst.hint
                if worst
                else "\n".join(dict.fromkeys(error.hint for error in errors if error.hint))
            ),
            host=errors[0].host,
        )


@contextlib.contextmanager
def open_session(environment: Environment, events: Events) -> Iterator[HostSession]:
    """Open every selected host and the lock's host at the same time; close them at the end.

    Meanwhile SIGTERM interrupts like Ctrl-C, so that a cancelled CI job is reverted, too.
    """
    configs = list(environment.hosts)
    if environment.lock_host not in configs:
        configs.append(environment.lock_host)
    opened = connect_all(configs, environment.timeouts)
    hosts = {name: host for name, host in opened.items() if not isinstance(host, DeployError)}
    selected = [config.name for config in environment.hosts]
    try:
        with interrupts.handle(by=interrupts.raise_interrupt):
            yield HostSession(
                environment,
                {name: hosts[name] for name in selected if name in hosts},
                {name: error for name, error in opened.items() if isinstance(error, DeployError)},
                events,
                hosts.get(environment.lock_host.name),
            )
    finally:
        _close(list(hosts.values()))


def _close(hosts: Sequence[Host]) -> None:
    for host in hosts:
        with contextlib.suppress(DeployError, OSError):
            host.close()
