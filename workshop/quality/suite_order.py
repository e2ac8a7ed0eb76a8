"""The order of the test files: the longest first, so that no worker ends long after the others.

`tests/durations.json` maps each test file to the seconds that it took when it was last measured,
set-up and tear-down included (`./inv test --durations-file=tests/durations.json`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree  # nosec B405 - the file is pytest's own

ROOT = Path(__file__).resolve().parents[2]
DURATIONS = ROOT / "tests" / "durations.json"
UNKNOWN = {"tests/e2e": 60.0, "tests/image": 60.0, "tests/integration": 10.0}
"""Seconds that a file is taken to need that was never measured; of other suites one second."""


def known(path: Path = DURATIONS) -> dict[str, float]:
    """The measured seconds of each test file; none if the file does not exist."""
    if not path.is_file():
        return {}
    found: dict[str, float] = json.loads(path.read_text())
    return found


def name_of(path: Path, root: Path = ROOT) -> str:
    """A test file as the table names it: relative to the root, with slashes."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def cost(file: str, durations: Mapping[str, float]) -> float:
    """The seconds that a test file (relative to the root, with slashes) is expected to take."""
    if file in durations:
        return durations[file]
    return next((s for folder, s in UNKNOWN.items() if file.startswith(f"{folder}/")), 1.0)


def record(report: Path, durations: Path = DURATIONS, root: Path = ROOT) -> None:
    """Write the seconds of each test file of a JUnit report; files that did not run keep theirs.

    Drops the files that no longer exist.
    """
    tree = ElementTree.parse(report)  # nosec B314 - the file is pytest's own
    cases = ((case.get("classname", ""), case.get("time", "0")) for case in tree.iter("testcase"))
    taken = known(durations) | totals(cases, root)
    kept = {file: seconds for file, seconds in taken.items() if (root / file).is_file()}
    longest = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    durations.write_text(json.dumps(dict(longest), indent=2) + "\n")


def totals(cases: Iterable[tuple[str, str]], root: Path = ROOT) -> dict[str, float]:
    """The seconds of each file, from the class name (`tests.unit.test_a` or `...test_a.TestB`) and
    the seconds of each test."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, seconds in cases:
        parts = name.split(".")
        while parts and not (root / "/".join(parts)).with_suffix(".py").is_file():
            parts.pop()
        if parts:
            found["/".join(parts) + ".py"] += float(seconds)
    return {file: round(seconds, 1) for file, seconds in found.items()}
