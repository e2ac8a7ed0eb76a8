"""The pictures of docs/architecture.md: the packages of each wing and the imports between them.

    python -m workshop.quality.architecture          # check the page
    python -m workshop.quality.architecture --write  # draw the pictures again

The allowed arrows are the layers of import-linter's contracts in setup.cfg, the descriptions are
the first lines of the packages' docstrings, and the arrows are the imports that grimp finds. An
arrow that follows from others is left out, so that a picture shows the longest ways only.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grimp

from deploy.machine.checkout import ROOT

PAGE = ROOT / "docs" / "architecture.md"
WINGS = ("amani_app", "deploy", "workshop")
_BLOCK = "<!-- architecture: {wing} -->\n{picture}<!-- end of {wing} -->\n"

_PLAIN = str.maketrans({"\n": " ", '"': "'", "`": None})
"""A label of Mermaid holds no line break, no double quote and no Markdown."""

Layers = Sequence[Sequence[str]]
Arrows = Mapping[str, frozenset[str]]


def read_layers(root: Path, wing: str) -> list[list[str]]:
    """Return the layers of a wing from the top down, each with the packages that share it."""
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    for name in parser.sections():
        section = parser[name]
        if section.get("type") == "layers" and section.get("containers") == wing:
            rows = section["layers"].strip().splitlines()
            return [re.split(r"\s*[|:]\s*", row.strip()) for row in rows if row.strip()]
    raise LookupError(f"setup.cfg has no layers contract for {wing}")


def find_arrows(wing: str, packages: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return which packages of a wing each of its packages imports."""
    graph = grimp.build_graph(wing, cache_dir=None)
    children = {
        name: {f"{wing}.{name}"} | graph.find_descendants(f"{wing}.{name}") for name in packages
    }
    owners = {module: name for name, modules in children.items() for module in modules}
    found: dict[str, set[str]] = {name: set() for name in packages}
    for name, modules in children.items():
        for module in modules:
            for imported in graph.find_modules_directly_imported_by(module):
                if owners.get(imported, name) != name:
                    found[name].add(owners[imported])
    return {name: frozenset(others) for name, others in found.items()}


def reduce_arrows(arrows: Arrows) -> dict[str, frozenset[str]]:
    """Return the transitive reduction of an acyclic graph: no arrow that follows from others."""

    def reach(name: str) -> frozenset[str]:
        return arrows[name].union(*(reach(other) for other in arrows[name]))

    return {
        name: others - frozenset().union(*(reach(other) for other in others))
        for name, others in arrows.items()
    }


def describe(root: Path, wing: str, package: str) -> str:
    """Return the first sentence of a package's or module's docstring, without its full stop."""
    path = root / wing / package / "__init__.py"
    if not path.is_file():
        path = root / wing / f"{package}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?:\s|$)|\n\n", docstring)[0].translate(_PLAIN)


def draw(layers: Layers, arrows: Arrows, descriptions: Mapping[str, str]) -> str:
    """Return a Mermaid flowchart: a node for each package, the upper layers first."""
    return "\n".join(
        ["```mermaid", "flowchart TD", *_lines(layers, arrows, descriptions), "```", ""]
    )


def _lines(layers: Layers, arrows: Arrows, descriptions: Mapping[str, str]) -> Iterator[str]:
    for layer in layers:
        for name in layer:
            yield f'    {name}["<b>{name}</b><br/>{descriptions[name]}"]'
    for name in (name for layer in layers for name in layer):
        for other in sorted(arrows[name]):
            yield f"    {name} --> {other}"


def draw_wing(root: Path, wing: str) -> str:
    """Return the picture of a wing as it is now."""
    layers = read_layers(root, wing)
    packages = [name for layer in layers for name in layer]
    arrows = reduce_arrows(find_arrows(wing, packages))
    return draw(layers, arrows, {name: describe(root, wing, name) for name in packages})


def update(page: str, pictures: Mapping[str, str]) -> str:
    """Return the page with its pictures replaced. Raises `LookupError` if it lacks one."""
    for wing, picture in pictures.items():
        pattern = re.compile(_BLOCK.format(wing=wing, picture=".*?"), re.DOTALL)
        found = pattern.findall(page)
        if len(found) != 1:
            raise LookupError(f"the page has {len(found)} pictures of {wing}, not one")
        page = page.replace(found[0], _BLOCK.format(wing=wing, picture=picture))
    return page


def main(arguments: Sequence[str]) -> int:
    """Check the page, or write it; returns the exit code."""
    found = PAGE.read_text(encoding="utf-8")
    fresh = update(found, {wing: draw_wing(ROOT, wing) for wing in WINGS})
    if "--write" in arguments:
        PAGE.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != found:
        print(
            "docs/architecture.md does not show the imports of the code; draw it again:\n"
            "    .venv/bin/python -m workshop.quality.architecture --write"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
