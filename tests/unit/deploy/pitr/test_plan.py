"""The plan that sets up archiving of a database, on values."""

from __future__ import annotations

import json
import typing as t

import pytest

from deploy.environment.sections import PitrConfig
from deploy.errors import DeployError, GateRefused, UsageError
from deploy.pitr.configuration import Placed, files, settings_path
from deploy.pitr.facts import Facts, Repository, Setting, parse_clusters, parse_repository
from deploy.pitr.moment import Departure
from deploy.pitr.plan import Plan, plan, require_live
from deploy.pitr.verdict import QUESTIONS, of_a_machine, of_a_service
from deploy.secrets.secret import Secret
from tests.support import clusters

WANTED = {
    "/etc/pgbackrest/amani-trial.conf": Placed("tool", secret=True),
    settings_path(clusters.cluster(), clusters.NAME): Placed("settings"),
}
THERE = {path: file.content for path, file in WANTED.items()}


def made(**changes: t.Any) -> Plan:
    facts = clusters.facts(**{"files": THERE, **changes})
    assert facts.live and facts.archiving
    return plan(clusters.NAME, facts, facts.live, facts.archiving, WANTED)


def kinds(**changes: t.Any) -> list[str]:
    return [step.kind for step in made(**changes).steps]


def test_bare_machine_gets_all_steps_and_one_restart() -> None:
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


def test_archived_and_backed_up_database_needs_no_steps() -> None:
    assert kinds() == []


def test_steps_left_by_a_killed_run_are_planned() -> None:
    settings = settings_path(clusters.cluster(), clusters.NAME)
    before = {**THERE, settings: "older"}
    assert kinds(files=before) == ["write", "reload", "check"]
    # The file is written, but the server was neither restarted nor reloaded.
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
        (clusters.archiving(archive_command="cp %p /srv"), "somebody else archives.*: cp %p /srv"),
        (
            clusters.archiving(archive_library="basic_archive"),
            "somebody else archives.*basic_archive",
        ),
    ],
)
def test_archive_of_another_environment_is_rejected(archiving: t.Any, why: str) -> None:
    with pytest.raises(GateRefused, match=why):
        made(archiving=archiving)


def test_overriding_setting_is_named() -> None:
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
def test_machine_without_the_database_is_rejected(
    facts: Facts, kind: type[DeployError], why: str
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


def placed(repository: dict[str, t.Any]) -> dict[str, Placed]:
    said = {"server": {"connection": "local"}, "repository": repository, "archive_timeout": "90s"}
    config = PitrConfig.model_validate_json(json.dumps(said))

    class Named:
        name = clusters.NAME

    return files(t.cast(t.Any, Named), clusters.cluster(), config, KEYS)


def test_secrets_are_written_only_to_private_files() -> None:
    for repository in (S3, {**SSH, "host_keys": [f"{HOST_KEY} me@here"], "passphrase": "PASS"}):
        for path, file in placed(repository).items():
            assert file.secret or "value-of" not in file.content, path


def test_every_repository_kind_is_configured_for_pgbackrest() -> None:
    s3 = placed(S3)["/etc/pgbackrest/amani-trial.conf"].content.splitlines()
    assert {
        "repo1-type=s3",
        "repo1-s3-endpoint=s3.example.org",
        "repo1-storage-port=9000",
        "repo1-s3-key-secret=value-of-KEY",
        "repo1-cipher-type=aes-256-cbc",
        "pg1-path=/var/lib/postgresql/17/main",
    } <= set(s3)
    ssh = placed({**SSH, "host_keys": [f"{HOST_KEY} me@here"]})
    assert "repo1-type=sftp" in ssh["/etc/pgbackrest/amani-trial.conf"].content
    known = ssh["/etc/pgbackrest/amani-trial.known_hosts"]
    assert known == Placed(f"[198.18.0.9]:2222 {HOST_KEY}\n")
    assert ssh["/etc/pgbackrest/amani-trial.key"] == Placed("value-of-KEY\n", secret=True)
    folder = placed({"kind": "folder", "path": "/srv/wal"})
    assert "repo1-type=posix" in folder["/etc/pgbackrest/amani-trial.conf"].content
    settings = folder["/etc/postgresql/17/main/conf.d/amani-trial.conf"].content
    assert "archive_timeout = 90\n" in settings and "archive_mode = on\n" in settings


# -- what programs print ---------------------------------------------------------------------------


def test_truncated_note_is_ignored() -> None:
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
def test_empty_repository_reports_its_problem(
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


def test_departures_are_merged_from_machine_and_repository() -> None:
    first, second = Departure(10, 100, 1), Departure(50, 200, 2)
    live = clusters.cluster(note={"environment": "trial", "departures": second.text()})
    bases = (clusters.base(departures=(first,)), clusters.base(departures=(first, second)))
    held = Repository(stanza=True, bases=bases)
    assert clusters.facts(clusters=(live,), repository=held).departures == (first, second)
    assert clusters.facts(clusters=(), repository=held).departures == (first, second)
    assert clusters.facts().departures == ()


# -- in words --------------------------------------------------------------------------------------

CONFIG = PitrConfig.model_validate_json(
    json.dumps(
        {"server": {"connection": "local"}, "repository": {"kind": "folder", "path": "/srv"}}
    )
)


def problems(words: str = "", **changes: t.Any) -> str:
    return "\n".join(of_a_machine(clusters.NAME, clusters.facts(**changes), CONFIG, words).problems)


def test_healthy_archive_has_no_problems() -> None:
    status = of_a_machine(clusters.NAME, clusters.facts(), CONFIG)
    assert status.problems == []
    assert dict(status.rows)["can be restored"] == (
        "from 1970-01-01 00:08:21 UTC to 1970-01-01 00:16:40 UTC"
    )


def test_each_problem_is_reported() -> None:
    assert "does not answer on port 5432" in problems(archiving=None)
    assert "is not archived" in problems(archiving=clusters.archiving(archive_mode="off"))
    failing = clusters.archiving(failed_at=999.0, failed_last="0008")
    told = problems("ERROR: [103]: unable to", archiving=failing)
    assert "fails since 1970-01-01 00:16:39 UTC, at 0008:\nERROR: [103]" in told
    waiting = clusters.archiving(waiting=9, waiting_seconds=301.0)
    assert "9 segments wait, the oldest for 301 s" in problems(archiving=waiting)
    assert "not installed" in problems(tool="")
    assert "no base backup" in problems(repository=Repository(stanza=True))
    away = Repository(problem="unable to connect")
    assert "the repository: unable to connect" in problems(repository=away)
    assert "newest base backup is of" in problems(now=500.0 + 9 * 86400)


def test_window_ends_at_last_archived_wal_while_archiving_fails() -> None:
    window = clusters.facts(archiving=clusters.archiving(failed_at=999.0)).window
    assert window and window.newest == 990.0


def test_status_lists_clusters_replaced_by_restores() -> None:
    old = clusters.cluster("old", 5433, running=False, note={"environment": "trial", "replaced": 1})
    other = clusters.cluster("other", 5434, note={"environment": "else"})
    rows = dict(
        of_a_machine(
            "trial", clusters.facts(clusters=(clusters.cluster(), old, other)), CONFIG
        ).rows
    )
    assert rows["cluster 17/old"] == "was live, is stopped (port 5433)"
    assert "cluster 17/other" not in rows


def test_status_of_managed_server_lists_hidden_values() -> None:
    refused = {"value": None, "error": "permission denied for function pg_ls_archive_statusdir"}
    silent = [refused] * len(QUESTIONS)
    status = of_a_service(silent)
    assert not status.rows and len(status.hidden) == len(QUESTIONS) + 2
