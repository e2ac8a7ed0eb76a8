"""The preflight: the conditions for a deploy. Pure: from facts to every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.errors import DeployError, GateRefused, HostUnreachable

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.facts import Facts, HostFacts


def check(environment: Environment, facts: Facts, platforms: Sequence[str], size: int) -> None:
    """Raise one error with every problem of every host, or do nothing.

    `platforms` are the image's, such as `linux/amd64` (empty: unknown); `size` is its size on disk
    in bytes. Raises `HostUnreachable` if a host did not answer, otherwise `GateRefused`.
    """
    problems = [
        problem
        for found in facts.hosts.values()
        for problem in _host_problems(environment, found, platforms, size)
    ]
    lines = [*facts.unreachable.values(), *(f"{host}: {text}" for host, text, _ in problems)]
    if not lines:
        return
    hints = dict.fromkeys(hint for *_, hint in problems if hint)
    text = "nothing was changed; the hosts are not ready for a release:\n" + "\n".join(
        f"- {line}" for line in lines
    )
    kind: type[DeployError] = HostUnreachable if facts.unreachable else GateRefused
    raise kind(text, hint="\n".join(hints) or "repeat the check with `invoke host.check`")


def _host_problems(
    environment: Environment, facts: HostFacts, platforms: Sequence[str], size: int
) -> Iterator[tuple[str, str, str]]:
    """The problems of a host: its name, the problem and the remedy."""
    name = facts.name
    free, needed = facts.disk_free, environment.disk_reserve + size
    if free < needed:
        yield (
            name,
            f"disk nearly full: {free / 1e9:.1f} GB free on the disk of the engine's data, "
            f"{needed / 1e9:.1f} GB needed (image and disk_reserve)",
            "free disk space (`docker system df` on the host shows the usage)",
        )
    if abs(facts.clock_skew) > environment.clock_skew_limit:
        yield (
            name,
            f"its clock differs by {facts.clock_skew:+.1f} s from this machine's "
            f"(clock_skew_limit is {environment.clock_skew_limit:g} s)",
            "synchronise the host's clock (`timedatectl set-ntp true`)",
        )
    wanted = [platform.split("/")[1] for platform in platforms]
    if wanted and facts.architecture not in wanted:
        yield (
            name,
            f"wrong architecture: the host is {facts.architecture}, "
            f"the image is for {', '.join(platforms)}",
            "build the image for the host's platform (image.platform in the environment file)",
        )
    if facts.database:
        yield (
            name,
            f"the database is unreachable from this host: {facts.database}",
            "check the database, the network to it, and the address in DATABASE_URL",
        )
    if "web" in facts.roles and not facts.proxy.running:
        ports = (environment.proxy.http_port, environment.proxy.https_port)
        for port in ports:
            if port in facts.busy_ports:
                yield (
                    name,
                    f"port {port} is in use by another process",
                    f"stop the listener (`ss -ltnp sport = :{port}` on the host shows it), or "
                    "choose another port in the environment file",
                )
