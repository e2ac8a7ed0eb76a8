"""`invoke test --changed`: which test files a changed file can reach."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.machine.checkout import ROOT
from workshop.quality import suite_run
from workshop.quality.changed_tests import (
    Selection,
    Sources,
    changed_files,
    read_sources,
    select,
)

IMPORTS = {
    "amani_app/__init__.py": set(),
    "amani_app/adapters/database/engine.py": set(),
    "amani_app/domain/money.py": set(),
    "amani_app/factory.py": {"amani_app/adapters/database/engine.py", "amani_app/domain/money.py"},
    "deploy/__init__.py": set(),
    "deploy/environment/model.py": {"deploy/errors.py"},
    "deploy/errors.py": set(),
    "deploy/tasks/release.py": {"deploy/environment/model.py"},
    "tasks.py": {"deploy/tasks/release.py", "workshop/tasks/bench.py"},
    "workshop/bench/load.py": set(),
    "workshop/bench/meters.py": set(),
    "workshop/tasks/bench.py": {"workshop/bench/load.py"},
    "tests/conftest.py": set(),
    "tests/support/guide.py": set(),
    "tests/support/server.py": set(),
    "tests/api/conftest.py": {"tests/support/server.py"},
    "tests/api/test_escrows.py": set(),
    "tests/e2e/test_upgrade.py": {"deploy/errors.py"},
    "tests/migrations/test_each.py": set(),
    "tests/unit/amani_app/test_money.py": {"amani_app/domain/money.py"},
    "tests/unit/deploy/test_environment.py": {"deploy/environment/model.py"},
    "tests/unit/deploy/test_errors.py": {"deploy/errors.py"},
    "tests/unit/deploy/test_program.py": set(),
    "tests/unit/deploy/test_sources.py": set(),
    "tests/unit/project/test_guides.py": {"tests/support/guide.py"},
    "tests/unit/project/test_tasks.py": {"tasks.py"},
    "tests/unit/workshop/test_load.py": {"workshop/bench/load.py"},
    "tests/unit/workshop/test_meters.py": {"workshop/bench/meters.py"},
}
CONSTANTS = {
    "tests/api/test_escrows.py": {"docs/api.md"},
    "tests/migrations/test_each.py": {"migrations/versions"},
    "tests/support/server.py": {"flask"},
    "tests/unit/deploy/test_program.py": {".venv/bin/invoke"},
    "tests/unit/deploy/test_sources.py": {"deploy/**/*.py"},
    "tests/unit/workshop/test_load.py": {"config", "rules.yml"},
    "workshop/bench/meters.py": {"wrk.lua"},
}
SOURCES = Sources(IMPORTS, {file: CONSTANTS.get(file, set()) for file in IMPORTS})

CASES = {
    "a test reaches itself": ("tests/unit/deploy/test_errors.py", ["unit/deploy/test_errors.py"]),
    "a deleted test reaches nothing": ("tests/unit/deploy/test_gone.py", []),
    "a module reaches its importers, over other modules too": (
        "workshop/bench/load.py",
        ["unit/project/test_tasks.py", "unit/workshop/test_load.py"],
    ),
    "a module reaches the tests that start its program, and those of the whole product": (
        "amani_app/factory.py",
        ["api/test_escrows.py", "e2e/test_upgrade.py"],
    ),
    "a task reaches the tests that start invoke, and a glob over it": (
        "deploy/tasks/release.py",
        [
            "e2e/test_upgrade.py",
            "unit/deploy/test_program.py",
            "unit/deploy/test_sources.py",
            "unit/project/test_tasks.py",
        ],
    ),
    "a support module reaches the tests below a conftest that imports it": (
        "tests/support/server.py",
        ["api/test_escrows.py"],
    ),
    "a support module reaches the test that imports it": (
        "tests/support/guide.py",
        ["unit/project/test_guides.py"],
    ),
    "a conftest reaches its folder": ("tests/api/conftest.py", ["api/test_escrows.py"]),
    "data that a module names reaches the tests of that module": (
        "workshop/bench/wrk.lua",
        ["unit/workshop/test_meters.py"],
    ),
    "data that no module names reaches the tests of its package": (
        "workshop/bench/other.lua",
        [
            "unit/project/test_tasks.py",
            "unit/workshop/test_load.py",
            "unit/workshop/test_meters.py",
        ],
    ),
    "a deleted module reaches the tests of its package": (
        "deploy/environment/gone.py",
        [
            "e2e/test_upgrade.py",
            "unit/deploy/test_environment.py",
            "unit/deploy/test_program.py",
            "unit/deploy/test_sources.py",
            "unit/project/test_tasks.py",
        ],
    ),
    "an environment's file reaches the tests of environments": (
        "config/environments/local.yml",
        [
            "unit/deploy/test_environment.py",
            "unit/deploy/test_program.py",
            "unit/project/test_tasks.py",
        ],
    ),
    "a page reaches the tests of guides and the test that names it": (
        "docs/api.md",
        ["api/test_escrows.py", "unit/project/test_guides.py", "unit/project/test_tasks.py"],
    ),
    "a page of the root reaches the tests of guides": (
        "README.md",
        ["unit/project/test_guides.py", "unit/project/test_tasks.py"],
    ),
    "a revision reaches the tests of the database, of its folder, and of the whole product": (
        "migrations/versions/0001_first.py",
        ["api/test_escrows.py", "e2e/test_upgrade.py", "migrations/test_each.py"],
    ),
    "a file of a folder without modules reaches the test that names it": (
        "config/rules.yml",
        ["unit/workshop/test_load.py"],
    ),
}


@pytest.mark.parametrize(("changed", "expected"), CASES.values(), ids=CASES.keys())
def test_a_changed_file_selects_the_tests_that_it_can_reach(changed: str, expected: list[str]):
    selection = select([changed], SOURCES)
    assert selection.unmapped == []
    assert selection.tests == [f"tests/{test}" for test in expected]


def test_a_package_module_reaches_the_tests_of_all_its_modules():
    every = {test for test in IMPORTS if "/test_" in test}
    assert select(["tests/conftest.py"], SOURCES).tests == sorted(every)
    reached = select(["deploy/__init__.py"], SOURCES).tests
    assert "tests/unit/deploy/test_errors.py" in reached
    assert "tests/unit/workshop/test_meters.py" not in reached


@pytest.mark.parametrize("path", ["Dockerfile", "tasks.py", "pytest.ini", "config/unknown.yml"])
def test_a_file_without_a_rule_runs_all_tests(path: str):
    selection = select([path, "docs/api.md"], SOURCES)
    assert selection.unmapped == [path]
    assert next(iter(selection.lines())) == f"{path}: no rule maps it to tests, so all tests run"


def test_the_account_names_the_first_tests_of_each_file():
    selection = Selection({"a.py": ["tests/test_1.py", "tests/test_2.py"], "b.py": []})
    assert list(selection.lines(most=1)) == [
        "a.py: 2 test files: test_1.py and 1 more",
        "b.py: 0 test files",
    ]


def test_the_imports_and_constants_of_this_checkout():
    sources = read_sources(ROOT)
    this = Path(__file__).relative_to(ROOT).as_posix()
    assert "workshop/quality/changed_tests.py" in sources.imports[this]
    assert "workshop/tasks/__init__.py" in sources.imports["tasks.py"]
    assert "deploy/**/*.py" in sources.constants[this]
    assert (
        "tests/integration/workshop/bench/test_api_bench.py"
        in select(["workshop/bench/wrk.lua"], sources).tests
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The branch `work`, one commit ahead of `main`, with each kind of uncommitted change."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name in ("kept", "edited", "removed", "staged", "committed"):
        (tmp_path / name).write_text("first\n")
    (tmp_path / ".gitignore").write_text("ignored\n")
    commit(tmp_path)
    git(tmp_path, "checkout", "--quiet", "-b", "work")
    (tmp_path / "committed").write_text("second\n")
    commit(tmp_path)
    (tmp_path / "edited").write_text("second\n")
    (tmp_path / "removed").unlink()
    (tmp_path / "staged").write_text("second\n")
    git(tmp_path, "add", "staged")
    (tmp_path / "new").touch()
    (tmp_path / "ignored").touch()
    return tmp_path


UNCOMMITTED = ["edited", "new", "removed", "staged"]


def test_commits_since_the_merge_base_and_uncommitted_files_are_changes(repository: Path):
    assert changed_files(repository) == (sorted([*UNCOMMITTED, "committed"]), "main")
    assert changed_files(repository, "HEAD") == (UNCOMMITTED, "HEAD")


def test_the_base_is_the_nearest_branch_of_the_origin(repository: Path):
    git(repository, "update-ref", "refs/remotes/origin/main", "main")
    git(repository, "branch", "--quiet", "develop", "work")
    assert changed_files(repository)[1] == "origin/main"
    git(repository, "update-ref", "refs/remotes/origin/develop", "work")
    assert changed_files(repository) == (UNCOMMITTED, "origin/develop")


def test_without_a_known_branch_only_uncommitted_files_are_changes(repository: Path):
    git(repository, "branch", "--quiet", "--delete", "--force", "main")
    assert changed_files(repository) == (UNCOMMITTED, "HEAD")


def test_an_unknown_base_is_refused(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.raises(UsageError, match="--base=nowhere has no merge base with HEAD"):
        changed_files(repository, "nowhere")
    with pytest.raises(UsageError, match="git diff failed"):
        changed_files(tmp_path_factory.mktemp("no-repository"))


@pytest.mark.parametrize(
    ("paths", "needed"),
    [
        ([], True),
        (["tests"], True),
        (["tests/unit", "tests/api/test_limits.py"], False),
        (["tests/unit", "tests/integration/project"], True),
        (["tests/unit/project/test_inv.py::test_one"], False),
    ],
)
def test_only_suites_that_use_an_engine_start_one(paths: list[str], needed: bool):
    assert suite_run.needs_engine(paths) is needed


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    git(folder, *who, "commit", "--quiet", "-m", "a change")
