"""Set up archiving: the steps of a plan, applied on the database's machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from deploy.errors import DeployError
from deploy.pitr import queries
from deploy.pitr.configuration import archive_command
from deploy.pitr.facts import parse_archiving
from deploy.pitr.server import USER

if TYPE_CHECKING:
    from deploy.environment.sections import RepositoryConfig
    from deploy.events import Events
    from deploy.pitr.facts import Cluster
    from deploy.pitr.plan import ArchivingPlan, Kind
    from deploy.pitr.server import DatabaseServer

_INSTALL = (
    "export DEBIAN_FRONTEND=noninteractive; command -v apt-get >/dev/null; apt-get update -qq; "
    "apt-get install -y -qq --no-install-recommends pgbackrest"
)
_REPOSITORY = 'install -d -m 750 -o "$2" -g "$2" "$1"'
_ERRORS = (
    "tail -n 400 \"$1\" 2>/dev/null | grep -aE 'ERROR: \\[[0-9]+\\]|HINT|archive command failed' "
    "| tail -n 4 || :"
)


def apply(
    plan: ArchivingPlan,
    server: DatabaseServer,
    cluster: Cluster,
    repository: RepositoryConfig,
    events: Events,
    check: Callable[[], None],
) -> None:
    """Apply every step of a plan.

    Raises `DeployError` with the step that failed. The applied steps stay, and the next run
    continues after them.
    """
    files = plan.files

    def write() -> None:
        for path, file in files.items():
            server.write(path, file.content, secret=file.secret)

    def stanza() -> None:
        make_repository(server, repository)
        server.pgbackrest("stanza-create")

    actions: Mapping[Kind, Callable[[], object]] = {
        "install": lambda: install(server),
        "write": write,
        "reload": lambda: control(server, cluster, "reload"),
        "restart": lambda: control(server, cluster, "restart", "-m", "fast"),
        "stanza": stanza,
        "check": lambda: check_archiving(server, cluster),
        "back-up": lambda: server.pgbackrest("backup", "--type=full"),
    }
    done: set[str] = set()
    for step in plan.steps:
        check()
        events.emit("note", step.text, host=server.name)
        if step.kind == "write" and step.kind in done:
            continue  # the first one wrote all files
        with server.explaining(
            f"could not {step.text}",
            hint="the steps before it stay applied; the same command continues after them",
        ):
            actions[step.kind]()
        done.add(step.kind)


def install(server: DatabaseServer) -> None:
    server.script(_INSTALL, timeout=900)


def make_repository(server: DatabaseServer, repository: RepositoryConfig) -> None:
    """Create the folder of a repository of kind `folder`, with PostgreSQL's user as owner."""
    if repository.kind == "folder":
        server.script(_REPOSITORY, repository.path, USER)


def control(server: DatabaseServer, cluster: Cluster, action: str, *options: str) -> None:
    """Start, stop, reload or restart a cluster, and wait until that is done."""
    argv = ("pg_ctlcluster", cluster.version, cluster.name, action, *options)
    server.run(argv, timeout=600)


def check_archiving(server: DatabaseServer, cluster: Cluster) -> None:
    """Check that a segment reaches the repository.

    Raises `DeployError` if the server has other settings than its configuration file, and
    `CommandFailed` if the segment does not arrive.
    """
    found = parse_archiving(server.query(cluster, queries.ARCHIVING))
    command = archive_command(server.stanza)
    if found.value("archive_command") != command or not found.on:
        setting = found.settings["archive_command" if found.on else "archive_mode"]
        raise DeployError(
            f"{server.name}: PostgreSQL uses {setting.value!r} and not the setting in conf.d",
            hint=f"it is set in {setting.file or 'the command line'}; postgresql.conf must include"
            " the folder conf.d, as Debian's does",
            host=server.name,
        )
    server.pgbackrest("check", timeout=180)


def read_archiving_errors(server: DatabaseServer, cluster: Cluster) -> str:
    """The last errors of archiving in the server's log; empty if there are none."""
    return server.script(_ERRORS, cluster.log).strip()
