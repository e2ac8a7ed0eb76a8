"""The API checks of a release: its guide, OpenAPI document, deposits, withdrawals, own tests."""

from __future__ import annotations

from collections.abc import Callable

from deploy.errors import DeployError
from workshop.pipeline.compat import contract
from workshop.pipeline.compat.api_guide import PAGE, run_guide
from workshop.pipeline.compat.compat_environment import CompatEnvironment, RunningRelease
from workshop.pipeline.compat.own_tests import run_tests
from workshop.pipeline.compat.tried_release import ApiResult, TriedRelease

Tell = Callable[[str], None]


class ApiChecks:
    """Checks of releases that run in one environment."""

    def __init__(self, environment: CompatEnvironment, tell: Tell) -> None:
        self._environment, self._tell = environment, tell

    def ask(self, release: TriedRelease, service: RunningRelease) -> ApiResult:
        """Check a running release against its own guide and OpenAPI document."""
        wrong = []
        if (release.source / PAGE).is_file():
            wrong = run_guide(release.source, service)
        else:
            self._tell(f"{release.name} has no {PAGE}: only its OpenAPI document is checked")
        if wrong:
            return ApiResult(wrong)
        try:
            with self._environment.work(release.image, service):
                answers = contract.ask_all(service)
        except DeployError as error:
            return ApiResult([error.message])
        return ApiResult(answers.wrong, answers)

    def test(self, release: TriedRelease, database: str, own: str) -> list[str]:
        """Run a release's own tests on copies of `database`; returns a line for each failure.

        Ignores tests that also fail on copies of `own`, which the release migrated itself.
        """
        url = self._environment.url
        found = run_tests(release.source, url, database)
        if found.trouble:
            self._tell(f"{release.name}: its own API tests cannot be run: {found.trouble}")
            return []
        control = run_tests(release.source, url, own, found.failed) if found.failed else found
        wrong = [
            f"{test}: {why}"
            for test, why in found.failed.items()
            if test not in control.failed and not control.trouble
        ]
        ignored = len(found.failed) - len(wrong)
        self._tell(
            f"{release.name}: {found.passed} of its own API tests pass on copies of that schema"
            + (f", {ignored} are ignored: they also fail on its own schema" if ignored else "")
        )
        return wrong
