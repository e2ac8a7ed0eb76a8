"""The workflows agree with the project's rules, and a changed copy is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.errors import GateRefused
from deploy.machine.checkout import ROOT
from workshop.quality.workflow_check import GRAPH, MONITORING, inspect, read, run


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with all files that the check reads."""
    for folder in (".github", "config", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "docs").mkdir()
    for name in ("CI_CD.md", "BRANCH_PROTECTION.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    return tmp_path


def test_the_workflows_pass(capsys: pytest.CaptureFixture[str]):
    run()
    said = capsys.readouterr().out
    assert f"{len(GRAPH)} workflows" in said
    assert all(tool in said for tool in ("schema", "zizmor", "shellcheck", "hadolint", *MONITORING))


BROKEN = [
    ("unknown task", "ci.yml", "./inv ci.unit", "./inv ci.units", "no task ci.units"),
    ("unknown option", "ci.yml", "ci.api --coverage", "ci.api --cover", "no option --cover"),
    ("no value", "deploy.yml", '--version="$IMAGE"', "--version", "takes a value"),
    ("a shell line", "ci.yml", "run: ./inv ci.lint", "run: black .", "no ./inv TASK"),
    (
        "two lines",
        "ci.yml",
        "run: ./inv ci.lint",
        "run: |\n          ./inv ci.lint\n          ./inv ci.unit",
        "more than one line",
    ),
    (
        "an expression in a line",
        "deploy.yml",
        'run: ./inv deploy --env=production --version="$IMAGE"',
        "run: ./inv deploy --env=production --version=${{ inputs.version }}",
        "pass it by env",
    ),
    ("unpinned action", "ci.yml", "@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7", "not pinned"),
    ("wide permission", "ci.yml", "permissions: {}", "permissions: write-all", "top-level"),
    (
        "missing permission",
        "security-scan.yml",
        "      security-events: write # to show findings in the Security tab\n",
        "",
        "security-events",
    ),
    (
        "missing permission to push",
        "deploy-staging.yml",
        "      packages: write # to push the image\n",
        "",
        "packages",
    ),
    (
        "superfluous permission",
        "codeql.yml",
        "      contents: read # to check out\n",
        "      contents: write # for fun\n",
        "its steps need",
    ),
    ("wrong secret", "deploy.yml", "secrets.FINCRA_API_KEY", "secrets.FINCRA_KEY", "FINCRA_KEY"),
    ("forgotten secret", "fly-deploy.yml", "secrets.FLY_API_TOKEN", "vars.FLY", "FLY_API_TOKEN"),
    ("no timeout", "codeql.yml", "    timeout-minutes: 30\n", "", "no timeout-minutes"),
    (
        "credentials left",
        "ci.yml",
        "persist-credentials: false",
        "persist-credentials: true",
        "credentials",
    ),
    (
        "a deploy that can be cancelled",
        "deploy.yml",
        "cancel-in-progress: false",
        "cancel-in-progress: true",
        "cancel-in-progress",
    ),
    (
        "a job that no longer waits",
        "deploy.yml",
        "needs: [build, approve]",
        "needs: [build]",
        "jobs wait for",
    ),
    ("a shell that goes on", "ci.yml", "    shell: bash\n", "    shell: sh\n", "must be bash"),
    (
        "a stranger's code",
        "ci.yml",
        "  pull_request:\n",
        "  pull_request_target:\n",
        "untrusted code",
    ),
    ("a moving runner", "deploy.yml", "ubuntu-24.04", "ubuntu-latest", "must be ubuntu-24.04"),
    ("a short memory", "deploy.yml", "retention-days: 90", "retention-days: 9", "9 days, must be"),
    (
        "a cache in a release",
        "fly-deploy.yml",
        "      - name: flyctl\n",
        "      - name: A cache\n"
        "        uses: actions/cache@55cc8345863c7cc4c66a329aec7e433d2d1c52a9 # v6.1.0\n"
        "      - name: flyctl\n",
        "must not use a cache",
    ),
    ("another job's name", "ci.yml", "name: Unit tests", "name: Units", "'Unit tests'"),
]


@pytest.mark.parametrize(
    ("file", "sound", "broken", "complaint"),
    [case[1:] for case in BROKEN],
    ids=[case[0] for case in BROKEN],
)
def test_a_broken_copy_is_refused(copy: Path, file: str, sound: str, broken: str, complaint: str):
    path = copy / ".github" / "workflows" / file
    text = path.read_text()
    assert sound in text
    path.write_text(text.replace(sound, broken, 1))
    wrong = inspect(read(copy))
    assert any(complaint in line for line in wrong), wrong


def test_a_workflow_without_a_specification_is_refused(copy: Path):
    shutil.copy(copy / ".github/workflows/codeql.yml", copy / ".github/workflows/other.yml")
    assert any(line.startswith("other.yml: its jobs") for line in inspect(read(copy)))


def test_ruleset_and_document_must_agree(copy: Path):
    ruleset = copy / ".github" / "rulesets" / "main.json"
    ruleset.write_text(ruleset.read_text().replace('"API tests"', '"APIs"'))
    assert any("differ: ['API tests', 'APIs']" in line for line in inspect(read(copy)))


def test_all_findings_of_the_tools_are_in_one_refusal(copy: Path):
    workflow = ".github/workflows/codeql.yml"
    broken = [
        (workflow, "timeout-minutes: 30", "timeout-minuts: 30"),
        (workflow, "permissions: {}", "permissions: write-all"),
        ("scripts/rollback.sh", "set -eu", "set -eu\ncd $1"),
        ("Dockerfile", "WORKDIR /app\n", "WORKDIR app\n"),
        ("config/prometheus.yml", "scrape_interval: 15s", "scrape_interval: often"),
        ("config/rules.yml", "amani_books_readable == 0", "amani_books_readable == "),
        ("config/rules.test.yml", 'values: "90x20"', 'values: "10x20"'),
        ("config/alertmanager.yml", "receiver: on-call", "receiver: nobody"),
    ]
    for name, sound, wrong in broken:
        text = (copy / name).read_text()
        assert sound in text, name
        (copy / name).write_text(text.replace(sound, wrong, 1))
    with pytest.raises(GateRefused) as refused:
        run(copy)
    for tool in ("schema", "zizmor", "shellcheck", "hadolint", *MONITORING):
        assert f"- {tool}:" in refused.value.message


def test_a_missing_file_is_named(copy: Path):
    (copy / "docs" / "CI_CD.md").unlink()
    with pytest.raises(GateRefused, match="CI_CD.md is missing"):
        read(copy)
