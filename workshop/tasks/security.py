"""Security scans with reports in reports/; a scanner that cannot run has not passed."""

from __future__ import annotations

from invoke.context import Context

from deploy.tasks.surface import task

TOLERANT = {"tolerant": "succeed although a scanner could not run (it still counts as not run)"}


@task()
def bandit(context: Context) -> None:
    """Scan the Python code for security mistakes."""
    from workshop.pipeline import scanners

    scanners.conclude([scanners.bandit(scanners.folder())])


@task(help=TOLERANT)
def audit(context: Context, tolerant: bool = False) -> None:
    """Look up known vulnerabilities of the locked packages; also with Safety if its key is set."""
    from workshop.pipeline import scanners

    scanners.conclude(scanners.audit(scanners.folder()), tolerant=tolerant)


@task(help={"image": "scan this image instead of the checkout", **TOLERANT})
def trivy(context: Context, image: str = "", tolerant: bool = False) -> None:
    """Scan the checkout, or an image, with Trivy; the report is SARIF."""
    from workshop.pipeline import scanners

    scanners.conclude([scanners.trivy(scanners.folder(), image)], tolerant=tolerant)


@task()
def sbom(context: Context) -> None:
    """Write the bill of materials (CycloneDX) of the image's packages."""
    from workshop.pipeline import scanners

    scanners.conclude([scanners.sbom(scanners.folder())])


@task(name="all", help=TOLERANT)
def every(context: Context, tolerant: bool = False) -> None:
    """Run every scanner over the checkout."""
    from workshop.pipeline import scanners

    reports = scanners.folder()
    findings = [scanners.bandit(reports), *scanners.audit(reports), scanners.trivy(reports)]
    scanners.conclude([*findings, scanners.sbom(reports)], tolerant=tolerant)
