"""Check the GitHub workflows before a push, against the rules and documents of this project.

Also checks the scripts, the Dockerfile and the monitoring rules that are shipped with the image.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import GateRefused
from deploy.machine.checkout import ROOT
from deploy.machine.packages import ensure_packages
from workshop.quality import workflow_commands
from workshop.quality.lint import checks, workflow_linters

Job = Mapping[str, Any]

GRAPH: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ci.yml": {
        "lint": (),
        "unit": (),
        "integration": (),
        "api": (),
        "migrations": (),
        "compat": ("lint", "unit"),
        "image": ("lint", "unit", "integration", "api", "migrations"),
        "e2e": ("lint", "unit"),
        "coverage": ("unit", "integration", "api", "e2e"),
        "gate": (
            *("lint", "unit", "integration", "api", "migrations"),
            *("compat", "image", "e2e", "coverage"),
        ),
    },
    "security-scan.yml": {"trivy": (), "bandit": (), "audit": (), "image": ()},
    "codeql.yml": {"analyze": ()},
    "deploy-staging.yml": {"test": (), "build": ("test",), "deploy": ("build",)},
    "deploy.yml": {
        "test": (),
        "build": ("test",),
        "approve": ("build",),
        "deploy": ("build", "approve"),
        "rollback": (),
    },
    "fly-deploy.yml": {"deploy": ()},
    "explore.yml": {"explore": ()},
    "retention.yml": {"staging": ()},
}
"""The jobs of each workflow, and the jobs that each waits for."""
UNSTOPPABLE = {"deploy.yml", "deploy-staging.yml", "fly-deploy.yml"}
"""The workflows whose runs are never cancelled."""
RISKY = {"pull_request_target", "workflow_run"}
RUNNER = "ubuntu-24.04"
RETENTION = 90
"""Days that artifacts are kept."""
_NEEDS: Mapping[str, Mapping[str, str]] = {
    "actions/checkout": {"contents": "read"},
    "github/codeql-action/upload-sarif": {"security-events": "write"},
    "github/codeql-action/analyze": {"security-events": "write"},
    "codecov/codecov-action": {"id-token": "write"},
    "actions/attest": {
        "id-token": "write",
        "attestations": "write",
        "artifact-metadata": "write",
    },
    "./inv image.build --env=staging": {"packages": "write"},
    "./inv image.build --env=production": {"packages": "write"},
    "./inv image.retention": {"packages": "write"},
    "./inv deploy": {"packages": "read"},
    "./inv rollback": {"packages": "read"},
    "$/.github/workflows/ci.yml": {"contents": "read", "id-token": "write"},
}
"""The permissions that a step needs, by the beginning of its action or command."""
MONITORING: Mapping[str, tuple[str, ...]] = {
    "promtool config": ("promtool", "check", "config", "config/prometheus.yml"),
    "promtool rules": ("promtool", "check", "rules", "config/rules.yml"),
    "promtool tests of rules": ("promtool", "test", "rules", "config/rules.test.yml"),
    "amtool": ("amtool", "check-config", "config/alertmanager.yml"),
}
PROGRAMS = ("prometheus", "prometheus-alertmanager")
"""The packages with promtool and amtool."""


@dataclass(frozen=True)
class Project:
    """The workflows, and the documented secrets and required checks that they must agree with."""

    workflows: Mapping[str, Mapping[str, Any]]
    secrets: frozenset[str]
    documented_checks: frozenset[str]
    required_checks: frozenset[str]
    workflow_texts: Mapping[str, str] = field(default_factory=dict)


def run(root: Path = ROOT, report: Callable[[str], None] = print) -> None:
    """Run all checks. Raises `GateRefused` with all findings, `UsageError` if a checker is missing
    and cannot be installed."""
    ensure_packages(PROGRAMS, "the checks of the monitoring", report)
    checkers = {**linters(root), **MONITORING}
    wrong = [line for name, argv in checkers.items() for line in _run(root, name, argv)]
    wrong += inspect(read(root))
    if wrong:
        raise GateRefused("the workflows failed their checks:\n- " + "\n- ".join(wrong))
    report(f"{len(GRAPH)} workflows passed the project's rules and {', '.join(checkers)}")


def linters(root: Path) -> dict[str, tuple[str, ...]]:
    """The static checks of workflows, scripts and the Dockerfile, by name."""
    known = {check.name.removeprefix("workflows: "): check.argv for check in checks(root)}
    return {
        name: known[name]
        for name in (*workflow_linters(root), "shellcheck", "hadolint")
        if name in known
    }


def read(root: Path) -> Project:
    """Read workflows and documents of a checkout. Raises `GateRefused` if a file is missing."""
    try:
        texts = {p.name: p.read_text() for p in sorted(root.glob(".github/workflows/*.yml"))}
        pipeline = (root / "docs" / "CI_CD.md").read_text()
        protection = (root / "docs" / "BRANCH_PROTECTION.md").read_text()
        ruleset = json.loads((root / ".github" / "rulesets" / "main.json").read_text())
    except FileNotFoundError as error:
        raise GateRefused(f"{error.filename} is missing") from None
    rules = {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}
    checks = rules["required_status_checks"]["required_status_checks"]
    return Project(
        workflows={name: yaml.safe_load(text) for name, text in texts.items()},
        secrets=frozenset(_table(pipeline, "## Secrets")),
        documented_checks=frozenset(_table(protection, "## Required checks")),
        required_checks=frozenset(check["context"] for check in checks),
        workflow_texts=texts,
    )


def inspect(project: Project) -> list[str]:
    """A line for each violation of the project's rules; pure."""
    return [
        *_graph(project),
        *(line for name in project.workflows for line in _workflow(name, project)),
        *_secrets(project),
        *_checks(project),
    ]


def jobs(workflow: Mapping[str, Any]) -> Mapping[str, Job]:
    """The jobs of a workflow, by their ids."""
    found: Mapping[str, Job] = workflow.get("jobs") or {}
    return found


def steps(job: Job) -> list[Mapping[str, Any]]:
    """The steps of a job; none if it calls another workflow."""
    return list(job.get("steps") or ())


def _graph(project: Project) -> Iterator[str]:
    for name in sorted({*GRAPH, *project.workflows}):
        found = {
            job: tuple([needs] if isinstance(needs := each.get("needs", ()), str) else needs)
            for job, each in jobs(project.workflows.get(name, {})).items()
        }
        if found != GRAPH.get(name):
            yield f"{name}: its jobs wait for {found}, must be {GRAPH.get(name)}"


def _workflow(name: str, project: Project) -> Iterator[str]:
    workflow = project.workflows[name]
    if workflow.get("permissions") != {}:
        yield f"{name}: top-level permissions must be {{}}"
    stoppable = (workflow.get("concurrency") or {}).get("cancel-in-progress")
    if (stoppable is False) != (name in UNSTOPPABLE):
        yield f"{name}: cancel-in-progress is {stoppable}"
    if ((workflow.get("defaults") or {}).get("run") or {}).get("shell") != "bash":
        yield f"{name}: defaults.run.shell must be bash, which stops at a failure in a pipe"
    named: Mapping[Any, Any] = workflow
    # YAML 1.1 reads the key `on` as true.
    if risky := RISKY & set(named.get("on") or named.get(True) or ()):
        yield f"{name}: {min(risky)} runs untrusted code with access to the secrets"
    for id_, job in jobs(workflow).items():
        cache = _caches(job) if name in UNSTOPPABLE else ()
        for line in (*_job(job), *_permissions(job), *_steps(job), *cache):
            yield f"{name}: {id_}: {line}"


def _job(job: Job) -> Iterator[str]:
    if "uses" not in job and not isinstance(job.get("timeout-minutes"), int):
        yield "no timeout-minutes"
    if "uses" not in job and job.get("runs-on") != RUNNER:
        yield f"runs-on is {job.get('runs-on')}, must be {RUNNER}"
    if not isinstance(job.get("permissions"), Mapping):
        yield "no permissions of its own"


def _permissions(job: Job) -> Iterator[str]:
    needed: dict[str, str] = {}
    for text in [job.get("uses", ""), *map(_what, steps(job))]:
        for prefix, permissions in _NEEDS.items():
            if text == prefix or text.startswith((f"{prefix} ", f"{prefix}@")):
                # Write permission includes read permission.
                needed |= {k: max(v, needed.get(k, "")) for k, v in permissions.items()}
    given = job.get("permissions") or {}
    if given != needed:
        yield f"permissions are {dict(given)}, its steps need {needed}"


def _steps(job: Job) -> Iterator[str]:
    for text in [job.get("uses", ""), *(step.get("uses", "") for step in steps(job))]:
        if text and not re.fullmatch(r"\$/\.github/[\w./-]+|[\w./-]+@[0-9a-f]{40}", text):
            yield f"{text} is not pinned by a commit"
    for step in steps(job):
        if "run" in step:
            yield from workflow_commands.problems(step["run"])
        elif step["uses"].startswith("actions/checkout@"):
            if (step.get("with") or {}).get("persist-credentials") is not False:
                yield "the checkout must not keep its credentials (persist-credentials: false)"
        elif step["uses"].startswith("actions/upload-artifact@"):
            if (days := (step.get("with") or {}).get("retention-days")) != RETENTION:
                yield f"an artifact is kept {days} days, must be {RETENTION}"


def _caches(job: Job) -> Iterator[str]:
    """Caches in a release: another run could have filled them with other content."""
    for step in steps(job):
        cached = (step.get("with") or {}).get("cache")
        if step.get("uses", "").startswith("actions/cache@") or cached:
            yield "a release must not use a cache"


def _what(step: Mapping[str, Any]) -> str:
    return str(step.get("run") or step.get("uses") or "")


def _secrets(project: Project) -> Iterator[str]:
    used: set[str] = set()
    for text in project.workflow_texts.values():
        for expression in re.findall(r"\$\{\{(.*?)\}\}", text, re.DOTALL):
            used |= set(re.findall(r"\bsecrets\.([A-Za-z_][A-Za-z0-9_]*)", expression))
    for name in sorted(used - project.secrets - {"GITHUB_TOKEN"}):
        yield f"the secret {name} is not in the list of docs/CI_CD.md"
    for name in sorted(project.secrets - used):
        yield f"docs/CI_CD.md lists the secret {name}, which no workflow uses"


def _checks(project: Project) -> Iterator[str]:
    names = {
        job.get("name", id_)
        for name in ("ci.yml", "codeql.yml")
        for id_, job in jobs(project.workflows.get(name, {})).items()
    }
    for check in sorted(project.documented_checks - names):
        yield f"docs/BRANCH_PROTECTION.md requires {check!r}, which is not a job"
    if project.documented_checks != project.required_checks:
        differ = sorted(project.documented_checks ^ project.required_checks)
        yield f"docs/BRANCH_PROTECTION.md and .github/rulesets/main.json differ: {differ}"


def _table(text: str, heading: str) -> list[str]:
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def _run(root: Path, name: str, argv: Sequence[str]) -> list[str]:
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    return [] if done.returncode == 0 else [f"{name}:\n{(done.stdout + done.stderr).strip()}"]
