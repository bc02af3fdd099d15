"""The trees that are listed, and the changes made to them.

Guarantees: the same shape and size gives the same names; a tree that is there
already (of a run with ``--dir``) is used again, with every file as it was last
left. Files are holes without a byte on the disk, but of sizes and times that
differ as in real life, so that the size of a snapshot is no better than there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SHAPES", "Tree", "build", "change", "tally"]

_DONE = ".complete"
#: Files were last written at some time in the month before this one.
_EPOCH_NS = 1_700_000_000 * 10**9
_SPREAD_NS = 30 * 86400 * 10**9


@dataclass(frozen=True)
class Shape:
    """So many directories, so many to each one above them, and so many files in each."""

    title: str
    directories: int  #: 0: all files lie in the root
    fan: int  #: directories are grouped by so many into one above; 0: all lie in the root
    files: int  #: in each directory

    def scaled(self, scale: float) -> Shape:
        """The same with so many times the entries; small directories keep their size."""
        if not self.directories:
            return Shape(self.title, 0, 0, max(1, round(self.files * scale)))
        return Shape(self.title, max(1, round(self.directories * scale)), self.fan, self.files)

    @property
    def entries(self) -> int:
        """Files in all."""
        return max(1, self.directories) * self.files


SHAPES = {
    "wide": Shape("1,000 × 1,000 files", 1000, 0, 1000),
    "flat": Shape("1 × 200,000 files", 0, 0, 200_000),
    "deep": Shape("100,000 directories × 2 files", 100_000, 100, 2),
}


@dataclass(frozen=True)
class Tree:
    """A tree on the disk."""

    name: str
    title: str
    root: Path
    shape: Shape

    def directories(self) -> Iterator[Path]:
        """The directories that hold files."""
        shape = self.shape
        if not shape.directories:
            yield self.root
        for number in range(shape.directories):
            above = self.root / f"g{number // shape.fan:05d}" if shape.fan else self.root
            yield above / f"d{number:06d}"


def build(base: Path, name: str, scale: float) -> Tree:
    """Make the tree of a shape, unless it is there."""
    shape = SHAPES[name].scaled(scale)
    size = f"{shape.entries:,} files"
    title = shape.title if scale == 1 else f"{shape.title.partition(' files')[0]}, scaled to {size}"
    tree = Tree(name, title, base / f"{name}-{shape.entries}", shape)
    mark = base / f"{tree.root.name}{_DONE}"
    if mark.exists():
        return tree
    chance = random.Random(name)
    for directory in tree.directories():
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number in range(shape.files):
                file = os.open(_file(number), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
                try:
                    os.truncate(file, int(chance.lognormvariate(9, 2)))
                    written = _EPOCH_NS - chance.randrange(_SPREAD_NS)
                    os.utime(file, ns=(written, written))
                finally:
                    os.close(file)
        finally:
            os.close(fd)
    mark.touch()
    return tree


def _file(number: int) -> str:
    return f"part-{number:06d}.csv"


def change(tree: Tree, share: float, seed: int) -> int:
    """Write to some of the files, scattered over the tree; how many they were."""
    shape = tree.shape
    chosen = random.Random(seed).sample(range(shape.entries), max(1, round(shape.entries * share)))
    wanted: dict[int, list[int]] = {}
    for number in chosen:
        wanted.setdefault(number // shape.files, []).append(number % shape.files)
    for number, directory in enumerate(tree.directories()):
        for file in wanted.get(number, ()):
            with open(directory / _file(file), "ab") as opened:
                opened.write(b"x")
    return len(chosen)


def tally(tree: Tree) -> int:
    """How many names a listing of the tree meets, directories included."""
    shape = tree.shape
    groups = -(-shape.directories // shape.fan) if shape.fan else 0
    return shape.entries + shape.directories + groups
