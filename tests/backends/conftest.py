"""What tests of watches share: trees that are watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller_core.listing import Hints
from tests.backends.watched import WHOLE, Tree


@pytest.fixture
def trees(tmp_path: Path) -> Iterator:
    made: list[Tree] = []

    def make(root: Path | None = None, **options) -> Tree:
        tree = Tree(root or tmp_path / "root", **options)
        made.append(tree)
        tree.root.mkdir(exist_ok=True)
        assert tree.look() == Hints(WHOLE, True, frozenset())
        return tree

    yield make
    for tree in made:
        tree.watch.close()


@pytest.fixture
def tree(trees) -> Tree:
    return trees()
