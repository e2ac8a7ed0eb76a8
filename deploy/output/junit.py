"""Findings as JUnit XML, which CI systems can show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree  # nosec B405 - written, never parsed

from deploy.errors import UsageError

if TYPE_CHECKING:
    from deploy.observe.smoke_checks import CheckResult


def write_junit(path: Path, suite: str, findings: Sequence[CheckResult]) -> None:
    """Write one test case per finding to a file, and create its folders.

    Raises `UsageError` if the file cannot be written.
    """
    failures = sum(not finding.passed for finding in findings)
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(findings)),
        failures=str(failures),
        errors="0",
        skipped="0",
        time=f"{sum(finding.seconds for finding in findings):.3f}",
    )
    for finding in findings:
        case = ElementTree.SubElement(
            root,
            "testcase",
            classname=f"{suite}.{finding.place}",
            name=finding.check,
            time=f"{finding.seconds:.3f}",
        )
        if not finding.passed:
            text = "".join(sign if sign.isprintable() else " " for sign in finding.remark)
            ElementTree.SubElement(case, "failure", message=text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
