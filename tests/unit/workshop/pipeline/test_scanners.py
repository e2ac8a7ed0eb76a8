"""A scanner passes, fails or does not run; a scanner that did not run has not passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.errors import GateRefused, UsageError
from workshop.pipeline import scanners
from workshop.pipeline.scanners import ScanResult


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ('echo "{}" > "$1"', "passed"),
        ('echo "{}" > "$1"; echo CVE-1; exit 1', "failed"),
        ("exit 0", "not run"),
        ("echo 'FATAL failed to download vulnerability DB'; exit 1", "not run"),
        ("echo 'requests.exceptions.ConnectionError'; exit 1", "not run"),
        ("echo 'a (1.0): Dependency not found and could not be audited'; exit 1", "not run"),
    ],
)
def test_the_outcome_follows_from_status_and_report(tmp_path: Path, script: str, outcome: str):
    written = tmp_path / "report.json"
    written.write_text("of the run before")
    finding = scanners._judge("one", [program(tmp_path, "scan", script), str(written)], written)
    assert finding.outcome == outcome


def test_a_failure_is_refused_even_if_tolerant():
    with pytest.raises(GateRefused, match="security: one failed"):
        scanners.conclude(
            [ScanResult("one", "failed"), ScanResult("two", "not run")], tolerant=True
        )


def test_a_scanner_that_did_not_run_fails_the_task_unless_tolerant():
    said: list[str] = []
    with pytest.raises(UsageError, match="not run: one"):
        scanners.conclude([ScanResult("one", "not run", "no data")], report=said.append)
    scanners.conclude([ScanResult("one", "not run", "no data")], tolerant=True, report=said.append)
    assert sum("not run" in line for line in said) == 2
    assert not any("passed" in line for line in said)


def test_an_optional_scanner_may_be_missing(tmp_path: Path):
    scanners.conclude([scanners._safety(tmp_path, {})], report=lambda line: None)


def test_without_trivy_nothing_was_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scanners.trivy(tmp_path).outcome == "not run"


def test_trivy_scans_files_or_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = 'for word; do case $word in --output=*) echo "$@" > "${word#*=}";; esac; done'
    program(tmp_path, "trivy", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scanners.trivy(tmp_path).outcome == "passed"
    assert (tmp_path / "trivy-fs.sarif").read_text().startswith("fs --format=sarif")
    assert scanners.trivy(tmp_path, "amani:1").outcome == "passed"
    assert (tmp_path / "trivy-image.sarif").read_text().endswith("amani:1\n")


def test_the_bill_of_materials_lists_the_locked_packages(tmp_path: Path):
    assert scanners.sbom(tmp_path).outcome == "passed"
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    names = {component["name"] for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert {"flask", "sqlalchemy", "gunicorn"} <= names
    assert not {"invoke", "pytest"} & names
