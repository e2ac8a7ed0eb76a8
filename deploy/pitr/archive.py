"""Letting PostgreSQL archive: a plan's steps, done on the database's machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from deploy.errors import CommandFailed, DeployError
from deploy.pitr import queries
from deploy.pitr.configuration import archive_command
from deploy.pitr.facts import parse_archiving
from deploy.pitr.server import USER

if TYPE_CHECKING:
    from deploy.environment.sections import RepositoryConfig
    from deploy.events import Events
    from deploy.pitr.facts import Cluster
    from deploy.pitr.plan import Kind, Plan
    from deploy.pitr.server import Server

_INSTALL = (
    "export DEBIAN_FRONTEND=noninteractive; command -v apt-get >/dev/null; apt-get update -qq; "
    "apt-get install -y -qq --no-install-recommends pgbackrest"
)
_REPOSITORY = 'install -d -m 750 -o "$2" -g "$2" "$1"'
_LAST_WORDS = (
    "tail -n 400 \"$1\" 2>/dev/null | grep -aE 'ERROR: \\[[0-9]+\\]|HINT|archive command failed' "
    "| tail -n 4 || :"
)


def apply(
    plan: Plan,
    server: Server,
    cluster: Cluster,
    repository: RepositoryConfig,
    events: Events,
    check: Callable[[], None],
) -> None:
    """Do every step of a plan. Raises `DeployError` with the step that failed; whatever was done
    before it stays, and the next run goes on from there."""
    files = plan.files

    def write() -> None:
        for path, file in files.items():
            server.write(path, file.content, secret=file.secret)

    def stanza() -> None:
        make_repository(server, repository)
        server.pgbackrest("stanza-create")

    doing: Mapping[Kind, Callable[[], object]] = {
        "install": lambda: install(server),
        "write": write,
        "reload": lambda: control(server, cluster, "reload"),
        "restart": lambda: control(server, cluster, "restart", "-m", "fast"),
        "stanza": stanza,
        "check": lambda: see_arrive(server, cluster),
        "back-up": lambda: server.pgbackrest("backup", "--type=full"),
    }
    done: set[str] = set()
    for step in plan.steps:
        check()
        events.emit("note", step.text, host=server.name)
        if step.kind == "write" and step.kind in done:
            continue  # all of them at once
        try:
            doing[step.kind]()
        except CommandFailed as error:
            raise DeployError(
                f"{server.name}: could not {step.text}:\n{error.output.strip()}",
                hint="what was done before it stays; the same command goes on from there",
                host=server.name,
            ) from None
        done.add(step.kind)


def install(server: Server) -> None:
    """Install pgBackRest from the distribution."""
    server.script(_INSTALL, timeout=900)


def make_repository(server: Server, repository: RepositoryConfig) -> None:
    """See to it that a repository on the machine has its folder."""
    if repository.kind == "folder":
        server.script(_REPOSITORY, repository.path, USER)


def control(server: Server, cluster: Cluster, what: str, *options: str) -> None:
    """Start, stop, reload or restart a cluster, and wait until that is so."""
    argv = ("pg_ctlcluster", cluster.version, cluster.name, what, *options)
    server.run(argv, timeout=600)


def see_arrive(server: Server, cluster: Cluster) -> None:
    """Let a segment go to the repository and see it there.

    Raises `DeployError` where the server goes by other settings than it was given.
    """
    found = parse_archiving(server.query(cluster, queries.ARCHIVING))
    command = archive_command(server.stanza)
    if found.value("archive_command") != command or not found.on:
        setting = found.settings["archive_command" if found.on else "archive_mode"]
        raise DeployError(
            f"{server.name}: PostgreSQL goes by {setting.value!r}, not by what was written for it",
            hint=f"that is set in {setting.file or 'its command line'}; its postgresql.conf must"
            " include the folder conf.d, as Debian's does",
            host=server.name,
        )
    server.pgbackrest("check", timeout=180)


def last_words(server: Server, cluster: Cluster) -> str:
    """What the server's log says last of archiving that failed; empty where it says nothing."""
    return server.script(_LAST_WORDS, cluster.log).strip()
