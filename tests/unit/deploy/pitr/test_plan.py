"""Archiving and recovery: plan, configuration files, parsed facts and status."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from deploy.environment.sections import PitrConfig
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.pitr.configuration import ConfigurationFile, files, settings_path
from deploy.pitr.facts import ClusterFacts, Repository, Setting, parse_clusters, parse_repository
from deploy.pitr.plan import ArchivingPlan, plan_archiving, require_live
from deploy.pitr.recovery_target import PastRecovery
from deploy.pitr.status import STATUS_QUERIES, status_of_cluster, status_of_connection
from deploy.secrets.secret import Secret
from tests.support import clusters

WANTED = {
    "/etc/pgbackrest/amani-trial.conf": ConfigurationFile("tool", secret=True),
    settings_path(clusters.cluster(), clusters.NAME): ConfigurationFile("settings"),
}
THERE = {path: file.content for path, file in WANTED.items()}


def made(**changes: Any) -> ArchivingPlan:
    facts = clusters.facts(**{"files": THERE, **changes})
    assert facts.live and facts.archiving
    return plan_archiving(clusters.NAME, facts, facts.live, facts.archiving, WANTED)


def kinds(**changes: Any) -> list[str]:
    return [step.kind for step in made(**changes).steps]


def test_a_bare_machine_gets_every_step_and_one_restart() -> None:
    bare = clusters.archiving(archive_mode="off", archive_command="(disabled)")
    found = made(tool="", archiving=bare, repository=Repository(), files={})
    assert [step.kind for step in found.steps] == [
        "install",
        "write",
        "write",
        "restart",
        "stanza",
        "check",
        "back-up",
    ]
    assert found.restarts and set(found.files) == set(WANTED)


def test_an_archived_database_with_a_backup_needs_no_step() -> None:
    assert kinds() == []


def test_the_steps_that_a_killed_run_left_are_planned() -> None:
    settings = settings_path(clusters.cluster(), clusters.NAME)
    before = {**THERE, settings: "older"}
    assert kinds(files=before) == ["write", "reload", "check"]
    # The file is written, but the server has neither restarted nor reloaded it.
    assert kinds(archiving=clusters.archiving(archive_command="/bin/true")) == ["reload", "check"]
    assert kinds(archiving=clusters.archiving(archive_mode="off")) == ["restart", "check"]
    assert kinds(repository=Repository(stanza=True, problem="no valid backups")) == [
        "check",
        "back-up",
    ]
    damaged = Repository(stanza=True, bases=(clusters.base(sound=False),))
    assert kinds(repository=damaged) == ["check", "back-up"]


@pytest.mark.parametrize(
    ("archiving", "why"),
    [
        (
            clusters.archiving(archive_command="cp %p /srv"),
            "another program archives.*: cp %p /srv",
        ),
        (
            clusters.archiving(archive_library="basic_archive"),
            "another program archives.*basic_archive",
        ),
    ],
)
def test_the_archive_of_another_program_is_not_replaced(archiving: Any, why: str) -> None:
    with pytest.raises(GateRefused, match=why):
        made(archiving=archiving)


def test_a_setting_that_overrides_the_file_is_named() -> None:
    found = clusters.archiving()
    own = {**found.settings, "archive_mode": Setting("on", "/data/postgresql.auto.conf")}
    with pytest.raises(GateRefused, match="archive_mode was set by ALTER SYSTEM") as refused:
        made(archiving=clusters.archiving(settings=own))
    assert refused.value.hint == "ALTER SYSTEM RESET archive_mode"


@pytest.mark.parametrize(
    ("facts", "kind", "why"),
    [
        (clusters.facts(port=6432), UsageError, "no cluster has port 6432.*17/main on 5432"),
        (clusters.facts(archiving=None), GateRefused, "17/main does not answer"),
        (clusters.facts(archiving=clusters.archiving(recovery=True)), GateRefused, "is a standby"),
        (
            clusters.facts(archiving=clusters.archiving(databases=("other",))),
            UsageError,
            "has no database amani; it has: other",
        ),
    ],
)
def test_a_machine_without_the_live_database_is_refused(
    facts: ClusterFacts, kind: type[DeployError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        require_live(facts, "amani")


# -- files -----------------------------------------------------------------------------------------

KEYS = {name: Secret(f"value-of-{name}") for name in ("ID", "KEY", "PASS")}
SSH = {"kind": "ssh", "path": "/srv/wal", "address": "198.18.0.9", "port": 2222, "key": "KEY"}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJRBCpCN9qIh/PDhQ6Qbe+my04GbZsF70yNRX7ZIXwwg"
S3 = {
    "kind": "s3",
    "path": "/amani",
    "bucket": "wal",
    "endpoint": "https://s3.example.org:9000",
    "username": "ID",
    "key": "KEY",
    "passphrase": "PASS",
}


def rendered(repository: dict[str, Any]) -> dict[str, ConfigurationFile]:
    said = {"server": {"connection": "local"}, "repository": repository, "archive_timeout": "90s"}
    config = PitrConfig.model_validate_json(json.dumps(said))

    class Named:
        name = clusters.NAME

    return files(cast(Any, Named), clusters.cluster(), config, KEYS)


def test_only_secret_files_contain_secrets() -> None:
    for repository in (S3, {**SSH, "host_keys": [f"{HOST_KEY} me@here"], "passphrase": "PASS"}):
        for path, file in rendered(repository).items():
            assert file.secret or "value-of" not in file.content, path


def test_every_kind_of_repository_is_configured() -> None:
    s3 = rendered(S3)["/etc/pgbackrest/amani-trial.conf"].content.splitlines()
    assert {
        "repo1-type=s3",
        "repo1-s3-endpoint=s3.example.org",
        "repo1-storage-port=9000",
        "repo1-s3-key-secret=value-of-KEY",
        "repo1-cipher-type=aes-256-cbc",
        "pg1-path=/var/lib/postgresql/17/main",
    } <= set(s3)
    ssh = rendered({**SSH, "host_keys": [f"{HOST_KEY} me@here"]})
    assert "repo1-type=sftp" in ssh["/etc/pgbackrest/amani-trial.conf"].content
    known = ssh["/etc/pgbackrest/amani-trial.known_hosts"]
    assert known == ConfigurationFile(f"[198.18.0.9]:2222 {HOST_KEY}\n")
    assert ssh["/etc/pgbackrest/amani-trial.key"] == ConfigurationFile(
        "value-of-KEY\n", secret=True
    )
    folder = rendered({"kind": "folder", "path": "/srv/wal"})
    assert "repo1-type=posix" in folder["/etc/pgbackrest/amani-trial.conf"].content
    settings = folder["/etc/postgresql/17/main/conf.d/amani-trial.conf"].content
    assert "archive_timeout = 90\n" in settings and "archive_mode = on\n" in settings


# -- the output of programs ------------------------------------------------------------------------


def test_a_damaged_note_counts_as_none() -> None:
    said = {"version": 17, "cluster": "main", "port": "5432", "running": 1, "pgdata": "/d"}
    text = json.dumps([{**said, "configdir": "/e"}, {**said, "configdir": "/f"}])
    torn, whole = parse_clusters(text, {"/e": '{"environ', "/f": '{"environment": "x"}'})
    assert (torn.note, whole.note) == ({}, {"environment": "x"})
    assert (whole.label, whole.port, whole.socket) == ("17/main", 5432, "/var/run/postgresql")


@pytest.mark.parametrize(
    ("code", "repo", "stanza", "problem"),
    [
        (0, "ok", True, ""),
        (2, "no valid backups", True, "no valid backups"),
        (1, "missing stanza path", False, "missing stanza path"),
        (99, "other", False, "cannot connect"),
    ],
)
def test_the_problem_of_a_repository_is_parsed(
    code: int, repo: str, stanza: bool, problem: str
) -> None:
    message = problem or repo
    said = {
        "name": "trial",
        "db": [{"id": 1}],
        "status": {"code": code, "message": repo},
        "repo": [{"key": 1, "status": {"code": code, "message": message}}],
    }
    found = parse_repository(json.dumps([said]))
    assert (found.stanza, found.problem) == (stanza, problem)
    assert parse_repository("[]") == Repository()


def test_past_recoveries_are_read_from_the_machine_and_the_repository() -> None:
    first, second = PastRecovery(10, 100, 1), PastRecovery(50, 200, 2)
    live = clusters.cluster(note={"environment": "trial", "departures": second.text()})
    bases = (
        clusters.base(past_recoveries=(first,)),
        clusters.base(past_recoveries=(first, second)),
    )
    held = Repository(stanza=True, bases=bases)
    assert clusters.facts(clusters=(live,), repository=held).past_recoveries == (first, second)
    assert clusters.facts(clusters=(), repository=held).past_recoveries == (first, second)
    assert clusters.facts().past_recoveries == ()


# -- status ----------------------------------------------------------------------------------------

CONFIG = PitrConfig.model_validate_json(
    json.dumps(
        {"server": {"connection": "local"}, "repository": {"kind": "folder", "path": "/srv"}}
    )
)


def problems(errors: str = "", **changes: Any) -> str:
    return "\n".join(
        status_of_cluster(clusters.NAME, clusters.facts(**changes), CONFIG, errors).problems
    )


def test_a_working_archive_has_no_problems() -> None:
    status = status_of_cluster(clusters.NAME, clusters.facts(), CONFIG)
    assert status.problems == []
    assert dict(status.rows)["recovery window"] == (
        "from 1970-01-01 00:08:21 UTC to 1970-01-01 00:16:40 UTC"
    )


def test_each_problem_is_reported() -> None:
    assert "does not answer on port 5432" in problems(archiving=None)
    assert "is not archived" in problems(archiving=clusters.archiving(archive_mode="off"))
    failing = clusters.archiving(failed_at=999.0, failed_last="0008")
    reported = problems("ERROR: [103]: unable to", archiving=failing)
    assert "failed since 1970-01-01 00:16:39 UTC, at 0008:\nERROR: [103]" in reported
    waiting = clusters.archiving(waiting=9, waiting_seconds=301.0)
    assert "9 segments wait, the oldest for 301 s" in problems(archiving=waiting)
    assert "not installed" in problems(tool="")
    assert "no base backup" in problems(repository=Repository(stanza=True))
    broken = Repository(problem="unable to connect")
    assert "the repository: unable to connect" in problems(repository=broken)
    assert "newest base backup is from" in problems(now=500.0 + 9 * 86400)


def test_while_archiving_fails_the_window_ends_at_the_archive() -> None:
    window = clusters.facts(archiving=clusters.archiving(failed_at=999.0)).window
    assert window and window.newest == 990.0


def test_clusters_of_earlier_recoveries_are_shown() -> None:
    old = clusters.cluster("old", 5433, running=False, note={"environment": "trial", "replaced": 1})
    other = clusters.cluster("other", 5434, note={"environment": "else"})
    rows = dict(
        status_of_cluster(
            "trial", clusters.facts(clusters=(clusters.cluster(), old, other)), CONFIG
        ).rows
    )
    assert rows["cluster 17/old"] == "was live, is stopped (port 5433)"
    assert "cluster 17/other" not in rows


def test_the_status_of_a_managed_server_lists_hidden_information() -> None:
    refused = {"value": None, "error": "permission denied for function pg_ls_archive_statusdir"}
    answers = [refused] * len(STATUS_QUERIES)
    status = status_of_connection(answers)
    assert not status.rows and len(status.hidden) == len(STATUS_QUERIES) + 2
