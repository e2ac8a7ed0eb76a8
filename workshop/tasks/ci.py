"""The jobs of the pipeline, which also run on a developer's machine; reports go to reports/."""

from __future__ import annotations

from pathlib import Path

from invoke.context import Context

from deploy.tasks.options import ENV, default_environment
from deploy.tasks.surface import task

LEAST = 85.0
"""Percent of lines and branches of each package that the tests must cover."""


def _reports() -> Path:
    from workshop.pipeline.scanners import folder

    return folder()


@task(help={"informational": "report findings, but succeed"})
def lint(context: Context, informational: bool = False) -> None:
    """Run every static check; fails if one fails."""
    from deploy.errors import GateRefused
    from workshop.quality.lint import run_all

    try:
        run_all()
    except GateRefused as error:
        if not informational:
            raise
        print(f"informational: {error.message}")


@task(help={"least": "percent of amani_app's lines and branches (default: 85)"})
def unit(context: Context, least: float = LEAST) -> None:
    """Run the unit tests; fails if they cover too little of the service."""
    from workshop.pipeline.suite_job import judge, run_suite

    run_suite("unit", reports=_reports(), coverage=True)
    judge(_reports() / "coverage-unit.json", {"amani_app": least})


@task(help={"coverage": "measure the coverage"})
def integration(context: Context, coverage: bool = False) -> None:
    """Run the tests with PostgreSQL (the server in DATABASE_URL if set) and the engine."""
    from workshop.pipeline.suite_job import run_suite

    run_suite("integration", reports=_reports(), coverage=coverage)


@task(help={"coverage": "measure the coverage"})
def api(context: Context, coverage: bool = False) -> None:
    """Run the tests of requests and responses against the OpenAPI document."""
    from workshop.pipeline.suite_job import run_suite

    run_suite("api", reports=_reports(), coverage=coverage)


@task()
def migrations(context: Context) -> None:
    """Run the tests of migrations: upgrade, downgrade, each revision, models."""
    from workshop.pipeline.suite_job import run_suite

    run_suite("migrations", reports=_reports())


@task(
    help={
        "base": "commit of the previous release (default: the newest version tag in the past)",
        "image": "the image of the previous release, to pull it instead of building it",
    }
)
def compat(context: Context, base: str = "", image: str = "") -> None:
    """Run the previous release on this checkout's schema, and this checkout on its schema."""
    from deploy.machine.checkout import ROOT
    from workshop.pipeline.compat.trial import run

    run(ROOT, base=base, image=image)


@task()
def image(context: Context) -> None:
    """Build the image, check its structure, size and layers, and run its tests."""
    from deploy.machine.checkout import ROOT
    from workshop.pipeline import image_check
    from workshop.pipeline.suite_job import run_suite

    print(f"image: {image_check.run(ROOT, _reports())}")
    run_suite("image", reports=_reports())


@task(help={"coverage": "measure the coverage"})
def e2e(context: Context, coverage: bool = False) -> None:
    """Run the tests on practice hosts."""
    from workshop.pipeline.suite_job import run_suite

    run_suite("e2e", reports=_reports(), coverage=coverage)


@task(help={"least": "percent of the lines and branches of amani_app and of deploy (default: 85)"})
def coverage(context: Context, least: float = LEAST) -> None:
    """Fail if all suites together cover too little of the service or the deployer."""
    from workshop.pipeline.suite_job import SHIPPED, judge_suites

    suites = ("unit", "integration", "api", "e2e")
    judge_suites(suites, _reports(), dict.fromkeys(SHIPPED, least))


@task()
def workflows(context: Context) -> None:
    """Check the workflows, the scripts, the Dockerfile and the monitoring rules."""
    from workshop.quality.workflow_check import run

    run()


@task()
def gate(context: Context) -> None:
    """Succeed only if every job in NEEDS (the context `needs`, as JSON) succeeded."""
    import os

    from workshop.pipeline.job_results import require_success

    require_success(os.environ.get("NEEDS", ""))


@task(help=ENV)
def live(context: Context, env: str = "") -> None:
    """Set the live release as the outputs `version` and `digest` of a job's step."""
    from deploy.operations.history import read_history
    from deploy.output.github import set_outputs
    from deploy.output.report import Report

    name = env or default_environment()
    with Report() as report:
        last = next((r for r in read_history(name, report.events) if r.live), None)
    set_outputs(version=last.version if last else "", digest=last.digest if last else "")


@task(
    help={
        **ENV,
        "outcome": "how the deploy ended: success, failure, cancelled, approved",
        "version": "the release",
    }
)
def notify(context: Context, env: str = "", outcome: str = "", version: str = "") -> None:
    """Report the outcome of a deploy in the run's summary, and at NOTIFY_WEBHOOK_URL if set."""
    from deploy.output.github import send_notification

    send_notification(env or default_environment(), outcome, version)


@task()
def fly(context: Context) -> None:
    """Deploy this checkout to Fly.io with flyctl, which builds it there (fly.toml)."""
    from workshop.pipeline.fly import deploy

    deploy()


@task(name="all")
def every(context: Context) -> None:
    """Run every job and every scanner; a scanner without its data counts as not run."""
    from workshop.tasks import security

    for each in (lint, workflows):
        each(context)
    unit(context)
    for measured in (integration, api, e2e):
        measured(context, coverage=True)
    coverage(context)
    migrations(context)
    compat(context)
    image(context)
    security.every(context, tolerant=True)
