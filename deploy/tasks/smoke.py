"""The tasks `smoke` and `metrics`."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.options import ENV, JSON, default_environment
from deploy.tasks.surface import task


@task(
    help={
        **ENV,
        "url": "check this base URL only (default: the public route of each web host)",
        "version": "the expected version (default: the live release of the journal)",
        "junit": "write the results to this file, too, as JUnit XML",
        **JSON,
    }
)
def smoke(
    context: Context,
    env: str = "",
    url: str = "",
    version: str = "",
    junit: str = "",
    json: bool = False,
) -> None:
    """Check the live service: version, health, schema, API document, errors, headers, TLS, times.

    Exit codes: 0 all checks passed, 2 wrong usage, 3 a check failed, 7 no host is reachable.
    """
    from pathlib import Path

    from deploy.errors import GateRefused
    from deploy.operations.smoke import run_smoke_checks
    from deploy.output.junit import write_junit
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        findings = run_smoke_checks(name, report.events, url=url, version=version)
        report.show_findings(name, findings)
        if junit:
            write_junit(Path(junit), f"smoke.{name}", findings)
        failed = [each for each in findings if not each.passed]
        if failed:
            raise GateRefused(
                f"{len(failed)} of {len(findings)} checks failed:\n"
                + "\n".join(f"- {each.place}: {each.check}: {each.remark}" for each in failed),
                hint=f"invoke status --env={name}   # and invoke logs --env={name}",
            )


@task(help={**ENV, "file": "file to replace with the metrics, atomically (default: print them)"})
def metrics(context: Context, env: str = "", file: str = "") -> None:
    """Export deploy, certificate and archive metrics for Prometheus.

    The file is for the textfile collector of node_exporter.
    """
    from pathlib import Path

    from deploy.operations.metrics import collect_metrics
    from deploy.output.report import Report

    with Report() as report:
        text = collect_metrics(env or default_environment(), report.events)
    if not file:
        print(text, end="")
        return
    fresh = Path(f"{file}.new")
    fresh.write_text(text)
    fresh.replace(file)
