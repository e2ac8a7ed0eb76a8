"""Each failure of a trial of two releases has its own message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.database.revisions import Revision
from deploy.errors import DeployError, GateRefused
from workshop.pipeline.compat import compatibility_checks, own_tests
from workshop.pipeline.compat.api_checks import ApiChecks
from workshop.pipeline.compat.compatibility_checks import CompatibilityChecks, Control
from workshop.pipeline.compat.contract import Answers
from workshop.pipeline.compat.tried_release import ApiResult, TriedRelease

OLD, NEW = TriedRelease("1.0.0", "old", Path("/none")), TriedRelease(
    "this checkout", "new", Path("/none")
)
FINE = ApiResult([], Answers({"GET /me": [200]}))


@dataclass
class Served:
    """A running release; the statuses of its readiness in the order of the requests."""

    statuses: list[int]

    def status(self, path: str) -> int:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    @property
    def ready(self) -> bool:
        return self.status("/readiness") == 200


@dataclass
class Script:
    """An environment and API checks in which everything succeeds except for the given failures."""

    failing: dict[tuple[str, str], str] = field(default_factory=dict)
    """Error messages by image and command, or by image and database."""
    ends_at: dict[str, str] = field(default_factory=dict)
    """By database, the revision that its last migration ends at."""
    prints: list[str] = field(default_factory=lambda: ["as it was"])
    """Fingerprints, in the order of the calls."""
    old_ready: list[int] = field(default_factory=lambda: [200])
    new_ready: list[int] = field(default_factory=lambda: [503])
    ran: dict[tuple[str, str], ApiResult] = field(default_factory=dict)
    """Results of the API checks by image and database."""
    tests: list[str] = field(default_factory=list)
    databases: dict[str, str] = field(default_factory=dict)

    asked: list[tuple[str, str]] = field(default_factory=list)

    def snapshot(self, database: str, name: str) -> None:
        self.databases[name] = self.databases[database]

    def create(self, database: str, template: str = "") -> None:
        self.databases[database] = self.databases.get(template, "")

    def run(self, image: str, database: str, *command: str) -> str:
        for key in ((image, command[-1]), (image, database)):
            if said := self.failing.get(key):
                raise DeployError(said)
        if command[-1] == "upgrade":
            head = {"old": "h1", "new": "h2"}[image]
            self.databases[database] = self.ends_at.get(database, head)
        return ""

    def revision(self, database: str) -> str:
        return self.databases[database]

    def fingerprint(self, database: str) -> str:
        return self.prints.pop(0) if len(self.prints) > 1 else self.prints[0]

    def uses(self, database: str) -> dict[str, int]:
        return {"users": 1}

    @contextlib.contextmanager
    def serve(self, image: str, database: str, *, paying: bool = False) -> Iterator[Any]:
        self.serving = (image, database)
        yield Served(self.old_ready if image == "old" else self.new_ready)

    def await_readiness(self, service: Any, what: str) -> None:
        if what in self.failing.values():
            raise GateRefused(f"{what}: not within 60 s. Its last words:\n")

    def ask(self, release: TriedRelease, service: Any) -> ApiResult:
        self.asked.append((release.image, self.serving[1]))
        return self.ran.get(self.asked[-1], FINE)

    def test(self, release: TriedRelease, database: str, own: str) -> list[str]:
        assert (self.databases[database], self.databases[own]) == ("h2", "h1")
        return self.tests


BROKEN = ApiResult(["POST /escrows: 500: undocumented"])
ANOTHER = ApiResult([], Answers({"GET /me": [500]}))
EXPANDS: dict[str, tuple[Script, str]] = {
    "the previous release cannot create its own schema": (
        Script(failing={("old", "lived"): "no such type"}),
        "1.0.0 cannot migrate: no such type",
    ),
    "it fails on its own schema": (
        Script(ran={("old", "lived"): BROKEN}),
        "1.0.0 fails on its own schema h1 already, so its result on another schema proves "
        "nothing:\n- POST",
    ),
    "this checkout cannot migrate": (
        Script(failing={("new", "fresh"): "no such table"}),
        "this checkout cannot migrate: no such table",
    ),
    "its migrations end elsewhere": (
        Script(ends_at={"fresh": "h0"}),
        "this checkout: `flask db upgrade` ended at h0, expected h2",
    ),
    "the previous release is never ready on the new schema": (
        Script(failing={("old", ""): "readiness of 1.0.0 on h2"}),
        "readiness of 1.0.0 on h2: not within 60 s",
    ),
    "it answers what it does not document": (
        Script(ran={("old", "fresh"): BROKEN}),
        "1.0.0 does not run on the schema h2:\n- POST /escrows: 500",
    ),
    "it answers otherwise than before": (
        Script(ran={("old", "fresh"): ANOTHER}),
        "1.0.0 does not run on the schema h2:\n- GET /me: answered 200 (1), now 500 (1)",
    ),
    "its own tests fail there": (
        Script(tests=["tests/x.py::test_y: no such column"]),
        "1.0.0 does not run on the schema h2:\n- tests/x.py::test_y: no such column",
    ),
    "this checkout is ready too early": (
        Script(new_ready=[503, 200]),
        "this checkout's readiness answers 200 on the schema h1, which is too old for it",
    ),
    "this checkout is gone before its migrations": (
        Script(new_ready=[0]),
        "this checkout's readiness answers 0 on the schema h1",
    ),
    "unready it changes the database": (
        Script(prints=["as it was", "otherwise"]),
        "this checkout, unready on h1, disturbed 1.0.0 or its database",
    ),
    "unready it makes the previous release unready": (
        Script(old_ready=[503]),
        "this checkout, unready on h1, disturbed 1.0.0 or its database",
    ),
    "it stays unready once it migrated": (
        Script(failing={("new", ""): "readiness of this checkout on h2"}),
        "readiness of this checkout on h2: not within 60 s",
    ),
    "the data is wrong for the previous release": (
        Script(failing={("old", "reconcile"): "a wallet is 7 kobo short"}),
        "the data of 1.0.0 is wrong for 1.0.0 on h2:\na wallet is 7 kobo short",
    ),
    "the data is wrong for this checkout": (
        Script(failing={("new", "reconcile"): "a wallet is 7 kobo short"}),
        "the data of 1.0.0 is wrong for this checkout on h2:\na wallet is 7 kobo short",
    ),
    "the previous release ends up unready": (
        Script(old_ready=[200, 503]),
        "1.0.0 is no longer ready on h2",
    ),
}
CONTRACTS: dict[str, tuple[Script, str]] = {
    "this checkout is not ready before the contract": (
        Script(failing={("new", ""): "readiness of this checkout on h1"}),
        "readiness of this checkout on h1: not within 60 s",
    ),
    "this checkout needs the contract": (
        Script(ran={("new", "empty"): BROKEN}),
        "this checkout does not run on h1, and its migrations run after it serves:\n- POST",
    ),
    "the previous release uses what the contract removes": (
        Script(ran={("old", "fresh"): BROKEN}),
        "1.0.0 does not run on the schema h2:\n- POST /escrows: 500",
    ),
    "the contract fails on existing rows": (
        Script(failing={("new", "lived"): "violated by a row"}),
        "this checkout cannot migrate: violated by a row",
    ),
}


def run(
    script: Script, kind: Any, monkeypatch: pytest.MonkeyPatch, shared: Control | None = None
) -> list[str]:
    monkeypatch.setattr(compatibility_checks, "WATCH", 0.15)
    heard: list[str] = []
    both: Any = script
    trial = CompatibilityChecks(both, both, OLD, NEW, "h1", "h2", heard.append, shared)
    trial.run((Revision("h2", kind),), early=kind != "contract")
    return heard


@pytest.mark.parametrize("kind", ["expand", "contract"])
def test_a_release_that_keeps_to_the_schema_passes(kind: str, monkeypatch: pytest.MonkeyPatch):
    heard = run(Script(), kind, monkeypatch)
    assert heard[-1] == "the data of 1.0.0 is correct for both on h2" and len(heard) == 3


def test_trials_against_one_release_share_its_control_run(monkeypatch: pytest.MonkeyPatch):
    script, shared = Script(), Control()
    run(script, "expand", monkeypatch, shared)
    assert shared.result is FINE
    assert script.asked == [("old", "lived"), ("old", "fresh")]
    run(script, "contract", monkeypatch, shared)
    assert script.asked[2:] == [("new", "empty"), ("old", "fresh")]
    assert script.databases["written"] == "h1"


@pytest.mark.parametrize("case", EXPANDS)
def test_an_expand_that_breaks_something_is_refused(case: str, monkeypatch: pytest.MonkeyPatch):
    script, words = EXPANDS[case]
    with pytest.raises(GateRefused) as refused:
        run(script, "expand", monkeypatch)
    assert refused.value.message.startswith(words)


@pytest.mark.parametrize("case", CONTRACTS)
def test_a_contract_that_breaks_something_is_refused(case: str, monkeypatch: pytest.MonkeyPatch):
    script, words = CONTRACTS[case]
    with pytest.raises(GateRefused) as refused:
        run(script, "contract", monkeypatch)
    assert refused.value.message.startswith(words)


OPTIONS = "def pytest_addoption(parser): parser.addoption('--suite')"
OWN_TESTS = """
import pytest
pytestmark = pytest.mark.postgres

@pytest.fixture(scope="session")
def migrated_template():
    raise AssertionError("made by the release itself")

def test_of_both(migrated_template):
    assert migrated_template

def test_of_its_own_schema(migrated_template):
    assert migrated_template == "own_schema", "no such column"

def test_of_another_machine(migrated_template):
    raise OSError("no such program")
"""


@dataclass
class Server:
    url: str = "postgresql://unused@localhost/none"


def test_own_tests_run_on_the_schema_of_another_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(own_tests, "workers", lambda: 0)
    heard: list[str] = []
    server: Any = Server()
    suite, release = ApiChecks(server, heard.append), TriedRelease("1.0.0", "", tmp_path)
    place = tmp_path / "tests/service"

    def test() -> list[str]:
        return suite.test(release, "foreign_schema", "own_schema")

    assert test() == [] and heard.pop().endswith(
        "cannot be run: it has no tests/api and no tests/service"
    )
    place.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    postgres: a server\n")
    (place / "test_api.py").write_text(OWN_TESTS)
    assert test() == [] and "cannot be run: pytest ended with code 4: " in heard.pop()
    (tmp_path / "conftest.py").write_text(OPTIONS)
    (wrong,) = test()
    assert wrong == (
        "tests/service/test_api.py::test_of_its_own_schema: AssertionError: no such column"
    )
    assert heard == [
        "1.0.0: 1 of its own API tests pass on copies of that schema, 1 are ignored: they also "
        "fail on its own schema"
    ]
    (place / "test_api.py").write_text(OWN_TESTS.replace("migrated_template", "tmp_path"))
    assert test() == [] and "do not use the database that they are given" in heard.pop()
