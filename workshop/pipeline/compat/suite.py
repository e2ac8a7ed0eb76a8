"""The API suite of a release: its guide, its OpenAPI document, money in and out, its own tests."""

from __future__ import annotations

from collections.abc import Callable

from deploy.errors import DeployError
from workshop.pipeline.compat import contract
from workshop.pipeline.compat.candidate import Candidate, Ran
from workshop.pipeline.compat.own_tests import run_tests
from workshop.pipeline.compat.stand import Service, Stand
from workshop.pipeline.compat.walk import PAGE, walk

Tell = Callable[[str], None]


class Suite:
    """The suites of releases, on one stand."""

    def __init__(self, stand: Stand, tell: Tell) -> None:
        self._stand, self._tell = stand, tell

    def ask(self, release: Candidate, service: Service) -> Ran:
        """Ask a release that serves what its own guide and document say."""
        wrong = []
        if (release.source / PAGE).is_file():
            wrong = walk(release.source, service)
        else:
            self._tell(f"{release.name} has no {PAGE}: only its OpenAPI document is asked")
        if wrong:
            return Ran(wrong)
        try:
            with self._stand.work(release.image, service):
                answers = contract.ask_all(service)
        except DeployError as error:
            return Ran([error.message])
        return Ran(answers.wrong, answers)

    def test(self, release: Candidate, database: str, own: str) -> list[str]:
        """Run a release's own tests on copies of a database; what fails, a line each.

        What fails on copies of `own`, which that release migrated itself, says nothing of a schema.
        """
        url = self._stand.url
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
        mute = len(found.failed) - len(wrong)
        self._tell(
            f"{release.name}: of its own API tests {found.passed} pass on copies of that schema"
            + (f", {mute} cannot be judged: they fail on its own as well" if mute else "")
        )
        return wrong
