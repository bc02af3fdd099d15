"""Pictures are drawn from the sources beside them and are shown; that of the house agrees with the code."""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

import pytest

from tests.test_docs import PAGES, ROOT

PICTURES = ROOT / "docs" / "pictures"
SOURCES = sorted(PICTURES.glob("*.dot"))
HOUSE = PICTURES / "house.dot"
NODE = re.compile(r'^  (\w+) \[label="(.*?)"', re.MULTILINE)
EDGE = re.compile(r"^  (\w+) -> (\w+)", re.MULTILINE)


def test_each_has_a_source() -> None:
    assert SOURCES
    assert {one.stem for one in PICTURES.glob("*.svg")} == {one.stem for one in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_is_what_its_source_says(source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    first = source.with_suffix(".svg").read_text().splitlines()[0]
    assert digest in first, "run: make pictures"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_is_shown_and_says_what_it_shows(source: Path) -> None:
    picture = source.with_suffix(".svg")
    alternatives = [
        text
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for text, link in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())
        if (page.parent / link).resolve() == picture
    ]
    assert alternatives
    assert all(alternatives)


# -- the house ---------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """All modules of the packages, by their names."""
    found = {}
    for top in (ROOT, ROOT / "integrations"):
        for path in top.glob("poller_*/**/*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str) -> set[str]:
    """The modules of ours that one imports, at its head or late."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {
                f"{base}.{one.name}" if f"{base}.{one.name}" in modules() else base for one in node.names
            }
    return found & set(modules())


def in_house(name: str) -> str:
    """What the picture calls a module: a package of its own, or a module or package of the core."""
    first, *rest = name.split(".")
    return rest[0] if rest and first == "poller_core" else first


def test_the_house_is_as_drawn() -> None:
    text = HOUSE.read_text()
    boxes = {
        name: {module for line in label.split(r"\n")[1:] for module in line.split(" · ")}
        for name, label in NODE.findall(text)
    }
    where = {module: box for box, names in boxes.items() for module in names}
    where["poller_core"] = "pollers"  # the package itself only gathers what users import
    assert {in_house(name) for name in modules()} == set(where), "house.dot names these, no more and no less"

    below = {box: {to for out, to in EDGE.findall(text) if out == box} for box in boxes}
    for _ in boxes:
        below = {box: under.union(*(below[one] for one in under)) for box, under in below.items()}
    assert all(box not in under for box, under in below.items())

    real = {
        (where[in_house(name)], where[in_house(other)]): f"{name} imports {other}"
        for name in modules()
        for other in imports(name)
        if where[in_house(name)] != where[in_house(other)] and "__main__" not in name
    }
    assert not [told for (out, to), told in real.items() if to not in below[out]]
    assert set(EDGE.findall(text)) <= set(real)
