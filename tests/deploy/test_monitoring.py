"""Rules and dashboards: sound in themselves, and about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from deploy.checkout import ROOT
from deploy.journal import Record
from deploy.metrics import render
from deploy.probe import Answer

CONFIG = ROOT / "config"
DASHBOARDS = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
RULES = [
    rule
    for group in yaml.safe_load((CONFIG / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]


def named_metrics() -> set[str]:
    """Every metric that a rule or a dashboard asks for."""
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


def test_every_alert_leads_to_a_heading_of_a_runbook():
    for rule in RULES:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert anchor in anchors, rule["alert"]


def test_every_panel_has_a_query_and_its_own_place():
    assert [path.stem for path in DASHBOARDS] == ["business", "deploys", "service"]
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
        assert len(places) == len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["targets"] for panel in panels)


def record(version: str, outcome: str, finished: float) -> Record:
    return Record(
        id=version,
        kind="deploy",
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


def test_a_failed_deploy_and_the_release_that_stayed_are_told():
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


def test_the_text_is_one_that_prometheus_reads(tmp_path: Path):
    text = render("trial", [record("1.0.0", "succeeded", 100)], {"web-1": Answer(200)})
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
