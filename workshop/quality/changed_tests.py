"""Select the tests that a change can reach, from imports and from the files that code names.

`select` is pure. `read_sources` reads the import graph of a checkout, `changed_files` asks git.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from deploy.errors import UsageError
from deploy.machine.checkout import ROOT

PACKAGES = ("amani_app", "deploy", "workshop", "tests")
BASES = (("origin/develop", "origin/main"), ("develop", "main"))
"""Branches that a change is compared with; the second group counts if none of the first exists."""
PROGRAMS = {
    "flask": "amani_app",
    "gunicorn": "amani_app",
    "inv": "deploy/tasks",
    "invoke": "deploy/tasks",
}
"""Programs that tests and benchmarks start, and the package that each one runs."""
PRODUCT = ("amani_app", "deploy", "migrations")
WHOLE_PRODUCT = (
    "tests/e2e",
    "tests/image",
    "tests/integration/deploy/images/test_build.py",
    "tests/integration/deploy/operations/test_local.py",
    "tests/integration/project",
)
"""Tests that build or deploy the checkout itself: each change of `PRODUCT` reaches them."""
GUIDES = "tests/unit/project"
"""Tests that read all documentation."""
_COMMON = frozenset({"config", "docs", "migrations", *PACKAGES})
"""Folders whose names are constants for other reasons, too: only their files count as named."""
STANDS_FOR = {
    "config/environments": "deploy/environment",
    "migrations": "amani_app/adapters/database",
    "tests/durations.json": "tests/unit/workshop/quality/test_suite_order.py",
}
"""Files and folders that no module imports, and the package or file whose tests a change needs."""


@dataclass(frozen=True)
class Sources:
    """The Python files of a checkout by their paths, relative to its root and with slashes."""

    imports: Mapping[str, Set[str]]
    """Each file, and the files that it imports."""
    constants: Mapping[str, Set[str]] = field(default_factory=dict)
    """The string constants without white space of each file: names of files and programs."""


@dataclass(frozen=True)
class Selection:
    """The selected test files by the changed file that reaches them; `unmapped` runs all tests."""

    reached: Mapping[str, Sequence[str]]
    unmapped: Sequence[str] = ()

    @property
    def tests(self) -> list[str]:
        """The selected test files, each once, in alphabetical order."""
        return sorted({test for tests in self.reached.values() for test in tests})

    def lines(self, most: int = 3) -> Iterator[str]:
        """A short account: the tests of each changed file, at most `most` of them by name."""
        for path in self.unmapped:
            yield f"{path}: no rule maps it to tests, so all tests run"
        for path, tests in self.reached.items():
            count = f"{len(tests)} test file{'' if len(tests) == 1 else 's'}"
            named = ", ".join(test.removeprefix("tests/") for test in tests[:most])
            more = f" and {len(tests) - most} more" if len(tests) > most else ""
            yield f"{path}: {count}{': ' if tests else ''}{named}{more}"


def select(changed: Iterable[str], sources: Sources) -> Selection:
    """Map changed files (paths relative to the root) to the test files that they can reach."""
    importers = _importers(sources)
    reached: dict[str, Sequence[str]] = {}
    unmapped = []
    for path in sorted(set(changed)):
        first = _affected(path, sources)
        if first is None:
            unmapped.append(path)
            continue
        tests = {file for file in _closure(first, importers) if _is_test(file)}
        if _within(path, *PRODUCT):
            tests |= {file for file in sources.imports if _is_test(file, *WHOLE_PRODUCT)}
        reached[path] = sorted(tests)
    return Selection(reached, unmapped)


def changed_files(root: Path = ROOT, base: str = "") -> tuple[list[str], str]:
    """The files that differ from the merge base of HEAD and `base`, and the name of that base.

    Uncommitted and untracked files count. Without `base`, it is the nearest of `origin/develop` and
    `origin/main`, else of `develop` and `main`, else HEAD. Raises `UsageError` if `base` names no
    commit or git fails.
    """
    name, commit = _merge_base(root, base)
    different = _git(root, "diff", "--name-only", "--no-renames", "-z", commit, "--")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return sorted({*different.split("\0"), *untracked.split("\0")} - {""}), name


def read_sources(root: Path = ROOT) -> Sources:
    """Read imports and string constants of the packages and of the scripts that they import."""
    import grimp

    places = sys.path[:]
    sys.path.insert(0, str(root))
    try:
        graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    finally:
        sys.path[:] = places
    files = {module: file for module in graph.modules if (file := _file_of(root, module))}
    imports = {
        file: {
            files[each] for each in graph.find_modules_directly_imported_by(module) if each in files
        }
        for module, file in files.items()
        if "." in module or (root / module).is_dir()
    }
    for script in (file for module, file in files.items() if file == f"{module}.py"):
        modules = _imported(_parse(root / script))
        imports[script] = {files[each] for each in modules if each in files}
    return Sources(imports, {file: _constants(_parse(root / file)) for file in imports})


def _affected(path: str, sources: Sources) -> set[str] | None:
    """The Python files that a changed file affects directly; None if no rule knows."""
    if "/" not in path and not path.endswith(".md"):
        return None
    naming = {file for file in sources.constants if _names(file, path, sources)}
    if path in sources.imports:
        package = path.removesuffix("/__init__.py")
        return {path, *naming, *(_below(package, sources) if package != path else ())}
    if _is_test(path) and path.endswith(".py"):
        return naming  # it was deleted
    if path.endswith(".md") and path.rpartition("/")[0].partition("/")[0] in ("", "docs"):
        return {*naming, *(file for file in sources.imports if _is_test(file, GUIDES))}
    for folder, package in STANDS_FOR.items():
        if _within(path, folder):
            return {*filter(_is_test, naming), *_below(package, sources)}
    if _within(path, *PACKAGES):
        for parent in PurePosixPath(path).parents[:-1]:
            if modules := _below(str(parent), sources):
                return modules | naming if path.endswith(".py") else naming & modules or modules
    return naming or None


def _importers(sources: Sources) -> Mapping[str, set[str]]:
    """The files that depend directly on each file: importers, starters of its program, modules of
    its package, and tests below a conftest."""
    importers: defaultdict[str, set[str]] = defaultdict(set)
    started = {program: _below(package, sources) for program, package in PROGRAMS.items()}
    for file, imported in sources.imports.items():
        needs = set(imported)
        around = "conftest.py" if _within(file, "tests") else "__init__.py"
        if _is_test(file) or around == "__init__.py":
            needs |= {str(folder / around) for folder in PurePosixPath(file).parents}
        if _within(file, "tests", "workshop"):
            for constant in sources.constants.get(file, ()):
                needs |= started.get(PurePosixPath(constant).name, set())
        for each in needs - {file}:
            importers[each].add(file)
    return importers


def _closure(first: Iterable[str], importers: Mapping[str, Set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(first)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += importers.get(file, ())
    return found


def _names(file: str, path: str, sources: Sources) -> bool:
    """Whether a file names a changed file of another place: by its name, in tests and the workshop
    by a folder that holds it, in tests by a glob. Of modules and tests only a glob with a folder
    counts: their names are those of other things, too."""
    place = PurePosixPath(path)
    constants = sources.constants[file]
    last = {constant.rpartition("/")[2] for constant in constants}
    folders = {folder.name for folder in place.parents if folder.name}
    code = place.suffix == ".py" and _within(path, *PACKAGES)
    if not code:
        names = {place.name}
        if _within(file, "tests", "workshop"):
            names |= folders - _COMMON
        if last & names:
            return True
    if _is_test(file):
        for glob in (each for each in constants if "*" in each and "." in each):
            if "/" in glob:
                if fnmatchcase(path, glob.replace("**/", "*")):
                    return True
            elif not code and last & folders and fnmatchcase(place.name, glob):
                return True
    return False


def _below(folder: str, sources: Sources) -> set[str]:
    return {file for file in sources.imports if _within(file, folder)}


def _within(path: str, *places: str) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _is_test(file: str, *places: str) -> bool:
    return _within(file, *places or ("tests",)) and PurePosixPath(file).name.startswith("test_")


def _file_of(root: Path, module: str) -> str:
    path = module.replace(".", "/")
    return next(
        (file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file()), ""
    )


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.Module) -> set[str]:
    """The absolute names that a script imports; those of attributes are among them."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _constants(tree: ast.Module) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value
        and not any(character.isspace() for character in node.value)
    }


def _merge_base(root: Path, base: str) -> tuple[str, str]:
    if base:
        try:
            return base, _git(root, "merge-base", "HEAD", base).strip()
        except UsageError as error:
            raise UsageError(
                f"--base={base} has no merge base with HEAD: {error.message}"
            ) from None
    for group in BASES:
        found = []
        for name in group:
            try:
                commit = _git(root, "merge-base", "HEAD", name).strip()
            except UsageError:
                continue
            ahead = int(_git(root, "rev-list", "--count", f"{commit}..HEAD"))
            found.append((ahead, name, commit))
        if found:
            return min(found)[1:]
    return "HEAD", "HEAD"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode != 0:
        raise UsageError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout
