"""The production path on a practice host, by the `run:` lines of its workflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.machine.checkout import ROOT
from deploy.state.release import BuildInfo
from workshop.fleet.fleet import Fleet
from workshop.quality.workflow_check import jobs, steps

WORKFLOWS = ROOT / ".github" / "workflows"
WORKFLOW = yaml.safe_load((WORKFLOWS / "deploy.yml").read_text())
STAGING = yaml.safe_load((WORKFLOWS / "deploy-staging.yml").read_text())
ORDER = ("build", "approve", "deploy")
Outputs = dict[str, dict[str, str]]
TAGS = {"staging": ["staging-{sha}"], "production": ["latest", "prod-{sha}"]}


class Rehearsal:
    """Runs jobs as Actions does: steps in order, with outputs and conditions."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.folder = folder
        self.content: dict[str, Any] = yaml.safe_load(fleet.environment_file.read_text())
        self.secrets = _values(fleet.secrets_file.read_text())
        first = next(host for host in self.content["hosts"] if "web" in host["roles"])
        self.content["hosts"] = [first | {"roles": ["web"]}]
        self.done: list[tuple[str, str, int]] = []

    def build_for_staging(self, number: int) -> dict[str, str]:
        """The outputs of staging's build of this commit."""
        self._write("staging", {})
        self.done, self.summary = [], self.folder / "summary-staging"
        status, outputs = self._job(STAGING, "build", {}, number, {})
        assert status == "success", self.done
        return outputs

    def forget_staging(self) -> None:
        """Point staging at tags that do not exist for this commit."""
        self._write("staging", {"image": self.content["image"] | {"tags": ["of-another-{sha}"]}})

    def run(self, number: int, version: str = "", **changes: Any) -> str:
        """Run the workflow for an approved tag, or for a manual start if `version` is given.

        Returns the status of the last job.
        """
        self._write("production", changes)
        self.done = []
        self.summary = self.folder / f"summary-{number}"
        outputs: Outputs = {}
        status = "success"
        inputs = {"inputs.version": version}
        for name in ORDER if not version else ORDER[-1:]:
            if status == "success":
                status, outputs[name] = self._job(WORKFLOW, name, outputs, number, inputs)
        self.outputs = outputs
        return status

    def _write(self, name: str, changes: Mapping[str, Any]) -> None:
        image = self.content["image"] | {"tags": TAGS[name]}
        content = self.content | {"image": image} | changes
        (self.folder / f"{name}.yml").write_text(yaml.safe_dump(content))

    def _job(
        self,
        workflow: Mapping[str, Any],
        name: str,
        before: Outputs,
        number: int,
        inputs: Mapping[str, str],
    ) -> tuple[str, dict[str, str]]:
        job = jobs(workflow)[name]
        status, outputs, outcomes = "success", Outputs(), dict[str, str]()
        for step in steps(job):
            context = {
                f"steps.{s}.outputs.{k}": v for s, o in outputs.items() for k, v in o.items()
            }
            context |= {
                f"needs.{n}.outputs.{k}": v for n, o in before.items() for k, v in o.items()
            }
            context |= {f"steps.{s}.outcome": outcome for s, outcome in outcomes.items()}
            context |= {f"secrets.{k}": v for k, v in self.secrets.items()}
            context |= {"job.status": status, "github.actor": "ada", **inputs}
            if "run" not in step or not _holds(step.get("if", "success()"), status, context):
                continue
            given = {**(job.get("env") or {}), **(step.get("env") or {})}
            environ = {key: _render(str(text), context) for key, text in given.items()}
            code, written = self._step(step["run"], environ, number)
            self.done.append((name, step["run"].split()[1], code))
            if "id" in step:
                outputs[step["id"]] = written
                outcomes[step["id"]] = "failure" if code else "success"
            status = "failure" if code else status
        context = {f"steps.{s}.outputs.{k}": v for s, o in outputs.items() for k, v in o.items()}
        return status, {k: _render(v, context) for k, v in (job.get("outputs") or {}).items()}

    def _step(
        self, line: str, environ: Mapping[str, str], number: int
    ) -> tuple[int, dict[str, str]]:
        written = self.folder / "outputs"
        written.write_text("")
        actions = {
            "AMANI_ENVIRONMENTS": str(self.folder),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTOR": "ada",
            "GITHUB_RUN_NUMBER": str(number),
            "GITHUB_OUTPUT": str(written),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
        # Actions sets a variable without a value to an empty string.
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
            cwd=ROOT,
            env={**os.environ, **environ, **actions},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        print(line, done.returncode, done.stdout, done.stderr, sep="\n")
        return done.returncode, _values(written.read_text())


def _values(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if re.match(r"\w+=", line))
    return {name: value.strip("'\"") for name, _, value in lines}


def _render(text: str, context: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        names = (name.strip() for name in found[1].split("||"))
        return next((context[name] for name in names if context.get(name)), "")

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


def _holds(condition: str, status: str, context: Mapping[str, str]) -> bool:
    """Whether a step runs; without a status function, it runs only after success."""
    terms = [term.strip() for term in condition.split("&&")]
    known = {"always()": True, "failure()": status != "success", "success()": status == "success"}
    if not set(terms) & set(known):
        terms.append("success()")
    for term in terms:
        if (found := known.get(term)) is None:
            name, operator, literal = term.split(maxsplit=2)
            same = context.get(name, "") == literal.strip("'")
            found = same if operator == "==" else not same
        if not found:
            return False
    return True


@pytest.fixture
def rehearsal(bare_fleet: Fleet, tmp_path: Path) -> Iterator[Rehearsal]:
    yield Rehearsal(bare_fleet, tmp_path)
    bare_fleet.reset()


def tasks(rehearsal: Rehearsal) -> list[str]:
    return [task for _, task, code in rehearsal.done if code == 0]


DEPLOYED = ["deploy", "smoke", "ci.notify"]
BUILT = ["image.build", "security.sbom", "ci.notify", "secrets.check", "ci.live"]


def serves(rehearsal: Rehearsal, digest: str) -> bool:
    """Whether the live image has this digest."""
    asked = subprocess.run(
        ["./inv", "ci.live", "--env=production"],
        cwd=ROOT,
        env={**os.environ, "AMANI_ENVIRONMENTS": str(rehearsal.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(asked.stdout, asked.stderr)
    return f"digest={digest}\n" in asked.stdout


@pytest.mark.timeout(1200)  # thirty processes, on a loaded machine
def test_a_sound_release_reaches_production_and_a_faulty_one_is_rolled_back(rehearsal: Rehearsal):
    # The image of staging is not built again, unless this checkout has uncommitted changes.
    of_staging = rehearsal.build_for_staging(1)
    assert of_staging["digest"]
    again = BuildInfo.of(ROOT).dirty
    assert rehearsal.run(1) == "success", rehearsal.done
    assert tasks(rehearsal) == [*BUILT, *DEPLOYED]  # the first deploy has nothing to back up
    assert "approved" in rehearsal.summary.read_text()
    first = rehearsal.outputs["build"]["digest"]
    assert (first == of_staging["digest"]) or again
    assert json.loads((ROOT / "reports" / "release.json").read_text())["built"] is again
    assert serves(rehearsal, first)

    rehearsal.forget_staging()
    assert rehearsal.run(2) == "success", rehearsal.done
    assert tasks(rehearsal) == [*BUILT, "db.backup", *DEPLOYED]
    good = rehearsal.outputs["build"]["digest"]
    assert good != first

    settings = rehearsal.content.get("settings", {})
    faulty = settings | {"PRACTICE": "true", "PRACTICE_FAULT": "exit"}
    boot = rehearsal.content.get("timeouts", {}) | {"boot": "8s"}
    assert rehearsal.run(3, settings=faulty, timeouts=boot) == "failure", rehearsal.done
    assert rehearsal.done[-2:] == [("deploy", "deploy", 5), ("deploy", "ci.notify", 0)]
    assert "failure" in rehearsal.summary.read_text()
    assert serves(rehearsal, good)

    # A manual deploy of a release that passes every step and fails the smoke test after them.
    unsound = {"document_path": "/api/v1/no-such-document"}
    ended = rehearsal.run(4, version=first, smoke=unsound)
    assert ended == "failure", rehearsal.done
    assert [(task, code) for _, task, code in rehearsal.done][-4:] == [
        ("deploy", 0),
        ("smoke", 3),
        ("rollback", 0),
        ("ci.notify", 0),
    ]
    assert serves(rehearsal, good)
