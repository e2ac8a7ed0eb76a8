"""Smoke tests: is what runs what should run, and does it do its work?"""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.release import ENV, JSON, default_environment
from deploy.tasks.surface import task


@task(
    help={
        **ENV,
        "url": "ask this base URL only (default: every web host, on its public route)",
        "version": "the version expected (default: the one that the journal says is live)",
        "junit": "write the findings as JUnit XML into this file too",
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
    """Check what serves: version, health, schema, API document, errors, headers, TLS, times.

    Exit codes: 0 all is well, 2 wrong usage, 3 a check failed, 7 no host tells what is live.
    """
    from pathlib import Path

    from deploy.errors import GateRefused
    from deploy.operations.smoke import smoke as inspect
    from deploy.output.junit import write
    from deploy.output.report import Report

    name = env or default_environment()
    with Report(json=json) as report:
        findings = inspect(name, report.events, url=url, version=version)
        report.show_findings(name, findings)
        if junit:
            write(Path(junit), f"smoke.{name}", findings)
        failed = [each for each in findings if not each.passed]
        if failed:
            raise GateRefused(
                f"{len(failed)} of {len(findings)} checks failed:\n"
                + "\n".join(f"- {each.place}: {each.check}: {each.remark}" for each in failed),
                hint=f"invoke status --env={name}   # and invoke logs --env={name}",
            )


@task(help={**ENV, "file": "write it there, whole or not at all (default: print it)"})
def metrics(context: Context, env: str = "", file: str = "") -> None:
    """Tell Prometheus of deploys, certificates and archive, for node_exporter's collector."""
    from pathlib import Path

    from deploy.operations.smoke import metrics as tell
    from deploy.output.report import Report

    with Report() as report:
        text = tell(env or default_environment(), report.events)
    if not file:
        print(text, end="")
        return
    fresh = Path(f"{file}.new")
    fresh.write_text(text)
    fresh.replace(file)
