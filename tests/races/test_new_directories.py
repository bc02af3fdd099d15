"""Directories that come with something in them, and trees that are moved.

A watch on a new directory is always late: what was put into it before is only
found by listing it. These tests make that happen as often as they can.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from poller_core import FilePoller
from tests.races.tools import Books, on_disk, put, until

ROUNDS = 300


def _make_and_fill(inbox: Path, rounds: int) -> None:
    for number in range(rounds):
        put(inbox / f"a{number}" / "b" / "c" / "file", str(number))
        if number % 3 == 0:
            # Into a directory that is neither new nor old: its watch may be on its way.
            put(inbox / f"a{number}" / "b" / "late")


def _expected(rounds: int) -> set[bytes]:
    late = {b"a%d/b/late" % number for number in range(0, rounds, 3)}
    return late | {b"a%d/b/c/file" % number for number in range(rounds)}


def test_nested_directories_with_a_file_while_events_are_asked_for(inbox, watching):
    poller = watching()
    books = Books(inbox)
    writer = threading.Thread(target=_make_and_fill, args=(inbox, ROUNDS))
    writer.start()
    while writer.is_alive():
        books.enter(poller.get_new_events())
    writer.join()
    books.settle(poller)
    books.agree()
    assert {key for key, name in books.told if name == "created"} == _expected(ROUNDS)
    assert books.times("created") == len(_expected(ROUNDS))
    assert not books.times("deleted")


async def test_nested_directories_with_a_file_while_batches_are_awaited(inbox, watching):
    poller = watching()
    books = Books(inbox)
    writing = asyncio.create_task(asyncio.to_thread(_make_and_fill, inbox, ROUNDS))
    batches = poller.batches(interval=0.05)
    async with asyncio.timeout(60):
        async for batch in batches:
            books.enter(batch)
            await batch.ack()
            if len(books.known) == len(_expected(ROUNDS)):
                break
    await batches.aclose()
    await writing
    assert books.times("created") == len(_expected(ROUNDS))
    assert set(books.known) == _expected(ROUNDS)
    books.settle(poller)
    books.agree()


@pytest.mark.parametrize("rounds", [60])
def test_trees_that_come_and_go_while_events_are_asked_for(inbox, watching, rounds):
    """Whatever was seen of what came and went: the books balance, and agree with the disk at the end."""
    poller = watching()
    books = Books(inbox)

    def churn() -> None:
        for number in range(rounds):
            tree = inbox / f"t{number % 5}"
            for name in ("p/q/one", "p/two", "r/three"):
                put(tree / name, str(number))
            if number % 2:
                shutil.rmtree(tree)
            else:
                tree.rename(inbox / f"moved{number}")

    writer = threading.Thread(target=churn)
    writer.start()
    while writer.is_alive():
        books.enter(poller.get_new_events())
    writer.join()
    books.settle(poller)
    books.agree()
    assert len(books.known) == 3 * rounds / 2


def _tree(top: Path) -> Path:
    for name in ("one", "in/two", "in/deep/three"):
        put(top / name, name)
    return top


NAMES = (b"in/deep/three", b"in/two", b"one")


def _all(prefix: bytes, event: str) -> list[tuple[bytes, str]]:
    return [(prefix + name, event) for name in NAMES]


def test_tree_moved_in(tmp_path, inbox, watching):
    poller = watching()
    books = Books(inbox)
    _tree(tmp_path / "outside").rename(inbox / "tree")
    assert books.settle(poller) == _all(b"tree/", "created")
    put(inbox / "tree/in/deep/three", "changed since")
    put(inbox / "tree/in/deep/four")
    assert books.settle(poller) == [(b"tree/in/deep/four", "created"), (b"tree/in/deep/three", "modified")]
    books.agree()


def test_tree_moved_out_and_in_again(tmp_path, inbox, watching):
    tree = _tree(inbox / "tree")
    poller = watching()
    books = Books(inbox)
    tree.rename(tmp_path / "outside")
    assert books.settle(poller) == _all(b"tree/", "deleted")
    # The kernel's watches went along. What is written out there is none of our business.
    put(tmp_path / "outside/in/two", "written outside")
    put(tmp_path / "outside/in/new", "written outside")
    assert books.settle(poller) == []
    (tmp_path / "outside").rename(inbox / "tree")
    assert sorted(books.settle(poller)) == sorted([*_all(b"tree/", "created"), (b"tree/in/new", "created")])
    put(inbox / "tree/in/two", "written inside again")
    assert books.settle(poller) == [(b"tree/in/two", "modified")]
    books.agree()


def test_tree_moved_across(inbox, watching):
    tree = _tree(inbox / "a" / "tree")
    (inbox / "z").mkdir()
    poller = watching()
    books = Books(inbox)
    tree.rename(inbox / "z" / "tree")
    assert books.settle(poller) == _all(b"a/tree/", "deleted") + _all(b"z/tree/", "created")
    # Its directories are watched under their new names, and no more under the old ones.
    put(inbox / "z/tree/in/deep/three", "once more")
    assert books.settle(poller) == [(b"z/tree/in/deep/three", "modified")]
    (inbox / "a" / "tree").mkdir()
    put(inbox / "a/tree/other")
    assert books.settle(poller) == [(b"a/tree/other", "created")]
    books.agree()


def test_two_trees_trade_places(inbox, watching):
    for name in ("left", "right"):
        put(inbox / name / "same", name)
        put(inbox / name / f"only-{name}")
    poller = watching()
    books = Books(inbox)
    (inbox / "left").rename(inbox / "middle")
    (inbox / "right").rename(inbox / "left")
    (inbox / "middle").rename(inbox / "right")
    told = books.settle(poller)
    assert set(told) == {
        (b"left/same", "modified"),
        (b"right/same", "modified"),
        (b"left/only-left", "deleted"),
        (b"left/only-right", "created"),
        (b"right/only-right", "deleted"),
        (b"right/only-left", "created"),
    }
    put(inbox / "left/later")
    put(inbox / "right/later")
    assert books.settle(poller) == [(b"left/later", "created"), (b"right/later", "created")]
    books.agree()


def test_tree_renamed_in_a_chain_while_it_is_written_to(inbox, watching):
    put(inbox / "n0" / "in" / "first")
    poller = watching()
    books = Books(inbox)
    for number in range(30):
        (inbox / f"n{number}").rename(inbox / f"n{number + 1}")
        put(inbox / f"n{number + 1}" / "in" / f"f{number}")
        if number % 4 == 0:
            books.enter(poller.get_new_events())
    books.settle(poller)
    books.agree()
    assert len(books.known) == 31


def _chain(root: Path, depth: int, name: bytes) -> int:
    """Make directories below each other, as deep as you like; the descriptor of the last one."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def _write_at(fd: int, name: bytes, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=fd)
    os.write(file, content)
    os.close(file)


@pytest.mark.parametrize("early", [False, True], ids=["made-later", "there-before"])
def test_chain_deeper_than_any_path_can_be(inbox, watching, early):
    depth, name = 60, b"d" * 200
    assert depth * len(name) > 4096 * 2
    poller: FilePoller | None = None if early else watching()
    bottom = _chain(inbox, depth, name)
    try:
        if poller is None:
            poller = watching()
        books = Books(inbox)
        key = (name + b"/") * depth + b"leaf"
        _write_at(bottom, b"leaf", b"1")
        assert books.settle(poller) == [(key, "created")]
        _write_at(bottom, b"leaf", b"22")
        assert books.settle(poller) == [(key, "modified")]
        os.unlink(b"leaf", dir_fd=bottom)
        assert books.settle(poller) == [(key, "deleted")]
        books.agree()
    finally:
        os.close(bottom)


ODD_NAMES = [
    b"\xff\xfe not UTF-8",
    b"latin-\xe9.csv",
    "name with ünïcode".encode(),
    "e\u0301".encode(),  # the same letter
    "\u00e9".encode(),  # in two spellings
    b"with\nnewline",
    b"per%20cent",
    b"what?#no",
    b" leading and trailing ",
    b"-rf",
    b"a",
    b"a-",
    b"a.",
    b"a0",
    b"\x01\x7f",
    b"x" * 255,
]


def test_names_that_are_not_what_one_expects(inbox, watching):
    poller = watching()
    books = Books(inbox)
    root = os.fsencode(inbox)
    for folder in (b"", b"dir-\xff%/"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
        for name in ODD_NAMES:
            with open(os.path.join(root, folder, name), "wb") as file:
                file.write(name)
    events = poller.get_new_events()
    books.enter(events)
    books.settle(poller)
    books.agree()
    assert len(books.known) == 2 * len(ODD_NAMES)
    for event in events:
        # The subject leads to the file, through its text too.
        with open(event.subject, "rb") as file:
            assert file.read() == os.path.basename(event.key)
        assert type(event.subject)(str(event.subject)) == event.subject
    again = [os.path.join(root, name) for name in ODD_NAMES]
    for path in again[:4]:
        os.unlink(path)
    assert sorted(books.settle(poller)) == sorted((name, "deleted") for name in ODD_NAMES[:4])
    books.agree()


def test_directory_and_files_that_sort_around_its_slash(inbox, watching):
    """``a/`` sorts between ``a.`` and ``a0``: an order that naive listings get wrong."""
    put(inbox / "a" / "z")
    poller = watching()
    books = Books(inbox)
    for name in ("a-", "a.", "a0", "a b", "a/0", "a/a/0"):
        put(inbox / name)
    assert sorted(books.settle(poller)) == sorted(
        (name, "created") for name in (b"a-", b"a.", b"a0", b"a b", b"a/0", b"a/a/0")
    )
    shutil.rmtree(inbox / "a")
    assert {name for _, name in books.settle(poller)} == {"deleted"}
    put(inbox / "a")
    assert books.settle(poller) == [(b"a", "created")]
    books.agree()


def test_directory_removed_while_it_is_filled(inbox, watching):
    """A race with rmtree: directories vanish between being named and being opened."""
    poller = watching()
    books = Books(inbox)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for name in ("x/y/z/1", "x/y/2", "x/3"):
                put(inbox / name)
            shutil.rmtree(inbox / "x")

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(150):
            books.enter(poller.get_new_events())
    finally:
        stop.set()
        writer.join()
    until(lambda: not on_disk(inbox), "the directory is empty")
    books.settle(poller)
    assert books.known == {}
