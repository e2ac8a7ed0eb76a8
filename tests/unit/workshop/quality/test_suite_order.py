"""The longest test files start first."""

from __future__ import annotations

import json
from pathlib import Path

from workshop.quality.suite_order import cost, known, name_of, record

REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.unit.test_a" name="one" time="1.25"/>
<testcase classname="tests.unit.test_a.TestGroup" name="two" time="2.0"/>
<testcase classname="tests.e2e.test_b" name="three" time="10.0"/>
<testcase classname="tests.unit.test_gone" name="four" time="10.0"/>
</testsuite></testsuites>"""


def test_a_measured_file_has_its_seconds_and_another_those_of_its_suite():
    durations = {"tests/e2e/test_a.py": 3.5}
    assert cost("tests/e2e/test_a.py", durations) == 3.5
    assert cost("tests/e2e/test_b.py", durations) == 60
    assert cost("tests/unit/test_c.py", durations) == 1


def test_a_report_replaces_the_seconds_of_the_files_that_ran(tmp_path: Path):
    for name in ("unit/test_a.py", "e2e/test_b.py", "api/test_c.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True)
        (tmp_path / "tests" / name).touch()
    report, durations = tmp_path / "junit.xml", tmp_path / "durations.json"
    report.write_text(REPORT)
    assert known(durations) == {}
    durations.write_text(
        json.dumps({"tests/e2e/test_b.py": 90, "tests/api/test_c.py": 4, "tests/api/test_d.py": 4})
    )
    record(report, durations, tmp_path)
    assert list(known(durations).items()) == [
        ("tests/e2e/test_b.py", 10.0),
        ("tests/api/test_c.py", 4),
        ("tests/unit/test_a.py", 3.2),
    ]


def test_files_of_the_committed_table_exist():
    root = Path(__file__).parents[4]
    assert [file for file in known() if not (root / file).is_file()] == []
    assert name_of(root / "tests" / "conftest.py") == "tests/conftest.py"
