"""What must hold before anything is touched. Pure: facts in, every problem out at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deploy.errors import DeployError, GateRefused, HostUnreachable

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.facts import Facts, HostFacts


def check(environment: Environment, facts: Facts, platforms: Sequence[str], size: int) -> None:
    """Raise one error that tells every problem of every host.

    `platforms` are those the image is for, such as `linux/amd64` (none: unknown); `size` is what
    it takes on disk in bytes. Raises HostUnreachable where a host did not answer, else
    GateRefused.
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
    raise kind(text, hint="\n".join(hints) or "`invoke host.check` asks again")


def _host_problems(
    environment: Environment, facts: HostFacts, platforms: Sequence[str], size: int
) -> Iterator[tuple[str, str, str]]:
    """Pairs of what is wrong and what to do, with the host's name."""
    name = facts.name
    free, needed = facts.disk_free, environment.disk_reserve + size
    if free < needed:
        yield (
            name,
            f"disk nearly full: {free / 1e9:.1f} GB free where the engine stores its data, "
            f"{needed / 1e9:.1f} GB needed (image and disk_reserve)",
            "free disk space (`docker system df` on the host shows what takes it)",
        )
    if abs(facts.clock_skew) > environment.clock_skew_limit:
        yield (
            name,
            f"its clock is {facts.clock_skew:+.1f} s off this machine's "
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
            f"the database does not answer from here: {facts.database}",
            "look at the database and the way to it; DATABASE_URL says where it should be",
        )
    if "web" in facts.roles and not facts.proxy.running:
        ports = (environment.proxy.http_port, environment.proxy.https_port)
        for port in ports:
            if port in facts.busy_ports:
                yield (
                    name,
                    f"port {port} is taken by something else",
                    f"stop what listens there (`ss -ltnp sport = :{port}` on the host), or choose "
                    "another port in the environment file",
                )
