"""Show the events and the result of an operation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Self

from deploy.events import Events
from deploy.output.console import choose_console
from deploy.output.prompt import confirm

if TYPE_CHECKING:
    from deploy.observe.smoke_checks import CheckResult
    from deploy.operations.planned_run import Result
    from deploy.operations.rollback import RollbackTarget
    from deploy.operations.status import Status
    from deploy.state.journal import Record
    from deploy.state.release import Release


class Report:
    """The output of one operation, which emits into `events`. A context manager."""

    def __init__(self, *, json: bool = False) -> None:
        self._console = choose_console(json)
        self.events = Events(self._console)
        # The operation sets `events.redact` later, when it has loaded the secrets.
        self._console.redact = lambda text: self.events.redact(text)

    def __enter__(self) -> Self:
        self._console.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._console.__exit__(kind, error, trace)

    def confirm(
        self,
        question: str,
        expected: str,
        *,
        automatic: bool = False,
        option: str = "--auto-confirm",
    ) -> None:
        """Ask a question; raise `UsageError` unless the operator types `expected`.

        `automatic` skips the question; `option` sets it on the command line.
        """
        self._console.close()
        confirm(question, expected, automatic=automatic, option=option)

    def show_result(self, result: Result, *, dry_run: bool) -> None:
        """Show the plan of a dry run, or the outcome of a run."""
        plan, name = result.plan, result.plan.environment
        if plan.empty:
            self._console.show_summary(f"{name} is already on {plan.version}: nothing to do")
        elif dry_run:
            self._console.show_plan(plan)
            self._console.show_summary("nothing was changed", {"plan": plan.hash})
        else:
            self._console.show_summary(
                f"{plan.version} is live at {result.environment.url}",
                {
                    "took": f"{result.seconds:.1f} s",
                    "look": f"invoke status --env={name}",
                    "go back": f"invoke rollback --env={name}",
                },
            )

    def show_schema(self, result: Result, *, dry_run: bool) -> None:
        """Show the plan of a dry run, or the new revision of the database."""
        from deploy.steps.schema import Downgrade, Migrate

        moves = [s for s in result.plan.steps() if isinstance(s, (Migrate, Downgrade))]
        if dry_run or not moves:
            self.show_result(result, dry_run=dry_run)
            return
        name, last = result.plan.environment, moves[-1]
        revision = last.head if isinstance(last, Migrate) else last.to
        self._console.show_summary(
            f"the database of {name} is at {revision}",
            {"took": f"{result.seconds:.1f} s", "look": f"invoke db.current --env={name}"},
        )

    def show_done(self, text: str, details: Mapping[str, str]) -> None:
        """Show the result of an operation in one line, with details."""
        self._console.show_summary(text, details)

    def show_rows(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        self._console.show_table(title, rows)

    def show_start(self, result: Result) -> None:
        """Show the URL of the service on this machine, and commands to try next."""
        name, url = result.environment.name, result.environment.url
        self._console.show_summary(
            f"{result.plan.version} is live at {url}",
            {
                "took": f"{result.seconds:.1f} s",
                "ask it": f"curl {url}/api/v1/health",
                "look": f"./inv status --env={name}",
                "ship a change": f"./inv deploy --env={name}",
            },
        )

    def show_image(self, release: Release, *, built: bool) -> None:
        """Show the image that was built or promoted, by its digest."""
        details = {"image": release.image.reference, "schema": release.schema_head or "none"}
        self._console.show_summary(f"{'built' if built else 'promoted'} {release.version}", details)

    def show_targets(self, name: str, targets: Sequence[RollbackTarget]) -> None:
        """Show the rollback targets, the live release included."""
        rows = [
            {
                "version": target.record.version,
                "commit": target.record.revision[:12],
                "live since": when(target.record.finished),
                "by": target.record.requested_by,
                "kept": "live" if target.live else target.source,
            }
            for target in targets
        ]
        self._console.show_table(f"rollback targets of {name}", rows)

    def show_status(self, status: Status) -> None:
        """Show the containers; warn about unreachable hosts and drift."""
        rows = [asdict(row) for row in status.rows]
        self._console.show_table(f"{status.environment} at {status.url}", rows)
        for line in (*status.unreachable, *status.drift):
            self.events.emit("warning", line)

    def show_findings(self, name: str, findings: Sequence[CheckResult]) -> None:
        rows = [
            {
                "place": found.place,
                "check": found.check,
                "result": "pass" if found.passed else "FAIL",
                "found": found.remark,
                "took": f"{found.seconds * 1000:.0f} ms",
            }
            for found in findings
        ]
        self._console.show_table(f"smoke test of {name}", rows)

    def show_releases(self, name: str, records: Sequence[Record]) -> None:
        rows = [
            {
                "when": when(record.started),
                "kind": record.kind,
                "version": record.version,
                "outcome": record.outcome,
                "took": f"{record.finished - record.started:.1f} s",
                "by": record.requested_by,
                "instead of": record.previous.get("version", ""),
            }
            for record in records
        ]
        self._console.show_table(f"releases of {name}", rows)


def when(seconds: float) -> str:
    """Format seconds since the epoch as a time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
