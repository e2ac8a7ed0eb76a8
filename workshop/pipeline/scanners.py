"""Security scanners, each with a report. A scanner that cannot run has not passed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.errors import GateRefused, UsageError
from deploy.machine.checkout import ROOT, program
from workshop.quality.requirements import LOCKS

SAFETY = "safety==3.8.1"
# The output of a scanner that cannot reach its data, and of pip-audit for a package that its
# service does not know, which means the same for a lock of published packages.
_NO_DATA = (
    "could not be audited",
    "ConnectionError",
    "ConnectTimeout",
    "Max retries exceeded",
    "failed to download vulnerability DB",
    "no such host",
    "connection refused",
    "ServiceError",
    "Unable to reach",
    "i/o timeout",
)


@dataclass(frozen=True)
class ScanResult:
    """The outcome of a scanner; `report` is the path of its report, relative to the checkout."""

    name: str
    outcome: Literal["passed", "failed", "not run"]
    words: str = ""
    report: str = ""
    optional: bool = False
    """Whether it may be missing: it only confirms another scanner."""


def bandit(reports: Path) -> ScanResult:
    """Scan the shipped Python code with Bandit for common security mistakes."""
    written = reports / "bandit.json"
    argv = [
        program("bandit"),
        "-q",
        "-c",
        "pyproject.toml",
        "-r",
        "amani_app",
        "deploy",
        "workshop",
    ]
    return _judge("bandit", [*argv, "-f", "json", "-o", str(written)], written)


def audit(reports: Path) -> list[ScanResult]:
    """Look up known vulnerabilities of all locked packages; also with Safety if its key is set."""
    found = []
    for lock in LOCKS.values():
        written = reports / f"pip-audit-{Path(lock).stem}.json"
        argv = [program("pip-audit"), "--strict", "--require-hashes", "--disable-pip"]
        argv += ["--progress-spinner=off", "--requirement", lock]
        argv += ["--format=json", f"--output={written}"]
        found.append(_judge(f"pip-audit {lock}", argv, written))
    return [*found, _safety(reports, os.environ)]


def trivy(reports: Path, image: str = "") -> ScanResult:
    """Scan this checkout, or an image, with Trivy for vulnerabilities, secrets and mistakes."""
    what = f"trivy image {image}" if image else "trivy fs"
    if not (found := shutil.which("trivy")):
        return ScanResult(what, "not run", "trivy is not on PATH")
    written = reports / ("trivy-image.sarif" if image else "trivy-fs.sarif")
    argv = [found, "image" if image else "fs", "--format=sarif", f"--output={written}"]
    argv += ["--severity=HIGH,CRITICAL", "--ignore-unfixed", "--exit-code=1"]
    argv += ["--skip-dirs=.venv", image or "."]
    return _judge(what, argv, written)


def sbom(reports: Path) -> ScanResult:
    """Write the bill of materials (CycloneDX) of the image's packages, from the lock."""
    written = reports / "sbom.cdx.json"
    argv = [program("cyclonedx-py"), "requirements", "requirements.txt"]
    argv += ["--output-reproducible", "--output-file", str(written)]
    finding = _judge("sbom", argv, written)
    if finding.outcome == "passed":
        count = len(json.loads(written.read_text())["components"])
        return ScanResult("sbom", "passed", f"{count} components", finding.report)
    return finding


def conclude(
    findings: Sequence[ScanResult],
    *,
    tolerant: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Report each outcome. Raises `GateRefused` if one failed and, unless `tolerant`, `UsageError`
    if one could not run."""
    for each in findings:
        where = f"  [{each.report}]" if each.report else ""
        report(f"{each.name:<42}{each.outcome:<9}{where}")
        if each.words:
            report(f"    {each.words}")
    if failed := [each.name for each in findings if each.outcome == "failed"]:
        raise GateRefused(f"security: {', '.join(failed)} failed")
    missing = [each.name for each in findings if each.outcome == "not run" and not each.optional]
    if missing and not tolerant:
        hint = "--tolerant makes the run succeed; they still count as not run"
        raise UsageError(f"not run: {', '.join(missing)}", hint=hint)


def folder() -> Path:
    """The folder of the reports; creates it if it is missing."""
    reports = ROOT / "reports"
    reports.mkdir(exist_ok=True)
    return reports


def _safety(reports: Path, environ: Mapping[str, str]) -> ScanResult:
    if not environ.get("SAFETY_API_KEY"):
        return ScanResult("safety", "not run", "SAFETY_API_KEY is not set", optional=True)
    written = reports / "safety.json"
    argv = [program("uv"), "tool", "run", "--from", SAFETY, "safety", "--stage", "cicd"]
    return _judge("safety", [*argv, "scan", "--save-as", "json", str(written)], written)


def _judge(name: str, argv: Sequence[str], written: Path) -> ScanResult:
    written.unlink(missing_ok=True)
    done = subprocess.run(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    tail = "\n    ".join(done.stdout.strip().splitlines()[-8:])
    report = f"reports/{written.name}" if written.exists() else ""
    if done.returncode == 0 and report:
        return ScanResult(name, "passed", report=report)
    if any(words.lower() in done.stdout.lower() for words in _NO_DATA):
        return ScanResult(name, "not run", f"its data is unreachable: {tail}", report)
    if done.returncode == 0:
        return ScanResult(name, "not run", "it wrote no report", report)
    return ScanResult(name, "failed", tail, report)
