"""The pictures of the architecture page: drawn from the layers and the imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from workshop.quality.architecture import draw, main, read_layers, reduce_arrows, update

LAYERS = [["tasks"], ["steps"], ["hosts", "state"]]
ARROWS = {
    "tasks": frozenset({"steps", "hosts"}),
    "steps": frozenset({"hosts", "state"}),
    "hosts": frozenset[str](),
    "state": frozenset[str](),
}


def test_page_shows_the_imports_of_the_code():
    assert main([]) == 0


def test_arrows_that_follow_from_others_are_left_out():
    reduced = reduce_arrows(ARROWS)
    assert reduced == {**ARROWS, "tasks": frozenset({"steps"})}


def test_picture_has_a_node_for_each_package_and_an_arrow_for_each_import():
    picture = draw(LAYERS, reduce_arrows(ARROWS), dict.fromkeys(ARROWS, "A room"))
    lines = picture.splitlines()
    assert lines[:2] == ["```mermaid", "flowchart TD"]
    assert lines[2] == '    tasks["<b>tasks</b><br/>A room"]'
    assert [line.strip() for line in lines if "-->" in line] == [
        "tasks --> steps",
        "steps --> hosts",
        "steps --> state",
    ]


def test_layers_come_from_the_contract_of_the_wing(tmp_path: Path):
    (tmp_path / "setup.cfg").write_text(
        "[importlinter:contract:one]\ntype = layers\ncontainers = wing\n"
        "layers =\n    top\n    left | right\n    a : b\n"
    )
    assert read_layers(tmp_path, "wing") == [["top"], ["left", "right"], ["a", "b"]]
    with pytest.raises(LookupError, match="no layers contract for other"):
        read_layers(tmp_path, "other")


def test_page_without_its_picture_is_refused():
    with pytest.raises(LookupError, match="0 pictures of deploy"):
        update("# Architecture\n", {"deploy": "a picture"})
    page = "<!-- architecture: deploy -->\nold\n<!-- end of deploy -->\n"
    assert "new" in update(page, {"deploy": "new\n"}) and "old" not in update(
        page, {"deploy": "new\n"}
    )
