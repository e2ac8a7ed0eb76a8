"""Alert rules and dashboards are valid and use existing metrics."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.machine.checkout import ROOT
from deploy.observe.metrics import render
from deploy.observe.probe import Answer
from deploy.pitr.facts import ClusterFacts, Repository
from deploy.state.journal import Record
from tests.support import clusters

CONFIG = ROOT / "config"
DASHBOARDS = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
RULES = [
    rule
    for group in yaml.safe_load((CONFIG / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]


def named_metrics() -> set[str]:
    """The names of all metrics in rules and dashboards."""
    queries = [rule["expr"] for rule in RULES]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        queries += [t["expr"] for panel in board["panels"] for t in panel["targets"]]
        queries += [each["expr"] for each in board["annotations"]["list"]]
    return set(re.findall(r"\b(?:amani|haproxy)_\w+", " ".join(queries)))


def test_every_alert_has_a_unit_test():
    text = (CONFIG / "rules.test.yml").read_text()
    tested = set(re.findall(r'alertname(?:=|: )"?(\w+)', text))
    assert {rule["alert"] for rule in RULES} == tested


def test_every_alert_links_to_a_runbook_section():
    for rule in RULES:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert anchor in anchors, rule["alert"]


def test_every_panel_has_a_query_and_position():
    assert [path.stem for path in DASHBOARDS] == ["business", "deploys", "service"]
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["targets"] for panel in panels)


def record(version: str, outcome: str, finished: float, kind: str = "deploy") -> Record:
    return Record(
        id=version,
        kind=kind,
        environment="trial",
        hosts=("web-1",),
        version=version,
        digest="",
        revision="",
        outcome=outcome,
        requested_by="ada",
        started=finished - 1,
        finished=finished,
    )


def test_failed_deploy_and_live_release_are_exported():
    history = [record("1.1.0", "reverted", 200), record("1.0.0", "succeeded", 100)]
    answers = {"web-1": Answer(200, expires=5_000.0), "web-2": Answer(0)}
    lines = [line for line in render("trial", history, answers).splitlines() if line[0] != "#"]
    assert lines == [
        'amani_deploy_failed{environment="trial"} 1',
        'amani_release_timestamp_seconds{environment="trial",version="1.0.0"} 100',
        'amani_route_up{environment="trial",host="web-1"} 1',
        'amani_route_up{environment="trial",host="web-2"} 0',
        'amani_certificate_expires_timestamp_seconds{environment="trial",host="web-1"} 5000',
    ]


def test_restore_drill_does_not_count_as_failed_deploy():
    history = [record("", "proved", 200, "drill"), record("1.0.0", "succeeded", 100)]
    assert 'amani_deploy_failed{environment="trial"} 0\n' in render("trial", history, {})


def told(facts: ClusterFacts | None) -> dict[str, float]:
    """The metrics of an archive."""
    lines = render("trial", [], {}, archived=True, archive=facts).splitlines()
    found = [re.fullmatch(r"amani_pitr_(\w+)\{.*\} (\S+)", line) for line in lines]
    return {one[1]: float(one[2]) for one in found if one}


def test_failing_archive_is_exported():
    well = {
        "archiving": 1,
        "failing": 0,
        "waiting_seconds": 0,
        "archived_timestamp_seconds": 990,
        "backup_timestamp_seconds": 500,
    }
    assert told(clusters.facts()) == well
    late = clusters.archiving(failed_at=995.0, waiting=3, waiting_seconds=70.0)
    assert told(clusters.facts(archiving=late)) == {**well, "failing": 1, "waiting_seconds": 70}
    off = clusters.archiving(archive_command="")
    assert told(clusters.facts(archiving=off))["archiving"] == 0
    bare = Repository(stanza=True)
    assert told(clusters.facts(repository=bare))["backup_timestamp_seconds"] == 0
    assert "backup_timestamp_seconds" not in told(clusters.facts(repository=Repository()))


@pytest.mark.parametrize(
    "facts",
    [None, clusters.facts(archiving=None, repository=Repository())],
    ids=["machine", "server"],
)
def test_unreachable_database_exports_no_stale_values(facts: ClusterFacts | None):
    assert told(facts) == {"archiving": 0}


def test_no_archive_metrics_without_archive():
    assert "pitr" not in render("trial", [], {})


def test_output_is_valid_prometheus_text(tmp_path: Path):
    history = [record("1.0.0", "succeeded", 100)]
    answers = {"web-1": Answer(200)}
    text = render("trial", history, answers, archived=True, archive=clusters.facts())
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
