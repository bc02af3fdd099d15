"""The target itself comes, goes, is replaced and is mounted over.

A root that is not there, or is not the one it was, says nothing about what was
in it: that is an error, and deletes nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading

import pytest

from poller_core import TargetError, TargetMoved, TargetNotFound
from tests.races.tools import Books, put, tmpfs, until

FILES = ("one", "in/two", "in/deep/three")
KEYS = [b"in/deep/three", b"in/two", b"one"]


def _fill(root) -> None:
    for name in FILES:
        put(root / name)


def test_removed_and_made_again(inbox, watching):
    _fill(inbox)
    poller = watching()
    books = Books(inbox)
    for _ in range(3):
        shutil.rmtree(inbox)
        for _ in range(2):
            with pytest.raises(TargetNotFound, match="inbox is not there"):
                poller.get_new_events()
        assert poller.status().error
        assert poller.status().entries == 3
        inbox.mkdir()
        _fill(inbox)
        put(inbox / "in" / "new")
        # There under the same names: other files now, so they changed; nothing is gone.
        assert set(books.settle(poller)) == {(key, "modified") for key in KEYS} | {(b"in/new", "created")}
        assert poller.status().error is None
        put(inbox / "in" / "deep" / "three", "the new one is watched")
        assert books.settle(poller) == [(b"in/deep/three", "modified")]
        (inbox / "in" / "new").unlink()
        assert books.settle(poller) == [(b"in/new", "deleted")]
    books.agree()


def test_removed_and_made_again_between_two_looks(inbox, watching):
    _fill(inbox)
    poller = watching()
    books = Books(inbox)
    for number in range(20):
        shutil.rmtree(inbox)
        inbox.mkdir()
        put(inbox / "in" / "two", str(number))
        books.settle(poller)
        books.agree()
        put(inbox / "in" / "two", "again" * number + "!")
        assert books.settle(poller) == [(b"in/two", "modified")]


def test_emptied_by_hand_is_no_missing_root(inbox, watching):
    _fill(inbox)
    poller = watching()
    books = Books(inbox)
    shutil.rmtree(inbox)
    inbox.mkdir()
    assert books.settle(poller) == [(key, "deleted") for key in KEYS]


def test_moved_away_and_back(tmp_path, inbox, watching):
    _fill(inbox)
    poller = watching()
    books = Books(inbox)
    inbox.rename(tmp_path / "away")
    with pytest.raises(TargetNotFound):
        poller.get_new_events()
    put(tmp_path / "away" / "in" / "two", "changed while away")
    (tmp_path / "away").rename(inbox)
    assert books.settle(poller) == [(b"in/two", "modified")]
    put(inbox / "in" / "two", "changed at home")
    assert books.settle(poller) == [(b"in/two", "modified")]


def test_parent_moved_away_and_back(tmp_path, kind, state):
    inbox = tmp_path / "up" / "inbox"
    _fill(inbox)
    with kind(inbox, recurse=True, state=state) as poller:
        books = Books(inbox)
        (tmp_path / "up").rename(tmp_path / "down")
        with pytest.raises(TargetNotFound, match="of the directories above it"):
            poller.get_new_events()
        put(tmp_path / "down" / "inbox" / "in" / "new")
        (tmp_path / "down").rename(tmp_path / "up")
        assert books.settle(poller) == [(b"in/new", "created")]


def test_link_switched_to_another_release(tmp_path, watching):
    """The way of deployments: ``current`` points at one directory, and a moment later at another."""
    for release in ("r1", "r2"):
        put(tmp_path / release / "same", release)
        put(tmp_path / release / f"only-{release}")
    current = tmp_path / "current"
    current.symlink_to("r1")
    poller = watching(current)
    books = Books(current)
    for here, there in (("r2", "r1"), ("r1", "r2")) * 3:
        (tmp_path / "next").symlink_to(here)
        (tmp_path / "next").rename(current)
        assert books.settle(poller) == [
            *sorted(
                [
                    (f"only-{there}".encode(), "deleted"),
                    (f"only-{here}".encode(), "created"),
                ]
            ),
            (b"same", "modified"),
        ]
        books.agree()
        put(tmp_path / here / "same", f"{here} again, written after the switch")
        put(tmp_path / there / "same", "nobody looks at this one now")
        assert books.settle(poller) == [(b"same", "modified")]


def test_replaced_while_it_is_listed(tmp_path, inbox, kind, state):
    """The switch happens in the middle of a look, again and again: never is half of one root concluded."""
    for release in ("r1", "r2"):
        for number in range(300):
            put(tmp_path / release / f"d{number % 7}" / f"{release}-{number}")
    current = tmp_path / "current"
    current.symlink_to("r1")
    stop = threading.Event()

    def switch() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (tmp_path / "next").symlink_to(("r1", "r2")[number % 2])
            (tmp_path / "next").rename(current)

    with kind(current, recurse=True, state=state) as poller:
        books = Books(current)
        refusals: list[str] = []
        switcher = threading.Thread(target=switch)
        switcher.start()
        try:
            for _ in range(60):
                try:
                    books.enter(poller.get_new_events())
                except TargetError as error:
                    refusals.append(str(error))
                else:
                    releases = {key.split(b"/")[1].split(b"-")[0] for key in books.known}
                    assert len(releases) == 1
                    assert len(books.known) == 300
        finally:
            stop.set()
            switcher.join()
        books.settle(poller)
        books.agree()
        assert all("replaced" in text for text in refusals)


def test_becomes_a_file(inbox, watching):
    _fill(inbox)
    poller = watching()
    books = Books(inbox)
    shutil.rmtree(inbox)
    put(inbox)
    with pytest.raises(TargetNotFound, match="not a directory any more"):
        poller.get_new_events()
    inbox.unlink()
    inbox.mkdir()
    assert books.settle(poller) == [(key, "deleted") for key in KEYS]


async def test_batches_outlive_the_root(inbox, watching):
    put(inbox / "one")
    poller = watching(existing="report")
    batches = poller.batches(interval=0.05)
    told = []
    async with asyncio.timeout(60):
        batch = await anext(batches)
        told += [tuple(event) for event in batch]
        await batch.ack()
        shutil.rmtree(inbox)
        await asyncio.to_thread(until, lambda: poller.status().error, "the root is missed")
        put(inbox / "two")
        while len(told) < 3:
            batch = await anext(batches)
            told += [(event.key, event.event) for event in batch]
            await batch.ack()
    await batches.aclose()
    assert sorted(told[1:]) == [(b"one", "deleted"), (b"two", "created")]


# -- mounts ------------------------------------------------------------------


def test_mount_that_goes_away_deletes_nothing(inbox, watching):
    with tmpfs(inbox):
        _fill(inbox)
        poller = watching()
        books = Books(inbox)
        assert books.settle(poller) == []
        # A second mount on top is, to whoever looks, what a mount point without its mount is: empty.
        with tmpfs(inbox):
            for _ in range(2):
                with pytest.raises(TargetMoved, match="Is a mount missing"):
                    poller.get_new_events()
            assert poller.status().entries == 3
            put(inbox / "written to the wrong place")
            with pytest.raises(TargetMoved):
                poller.get_new_events()
        assert books.settle(poller) == []
        put(inbox / "in" / "two", "changed")
        put(inbox / "four")
        assert books.settle(poller) == [(b"four", "created"), (b"in/two", "modified")]
        books.agree()


def test_empty_mount_point_deletes_nothing(inbox, watching):
    put(inbox / "below")
    with tmpfs(inbox):
        _fill(inbox)
        poller = watching()
        books = Books(inbox)
    # Now without the mount: there is the file that was hidden below it.
    with pytest.raises(TargetMoved):
        poller.get_new_events()
    assert poller.status().entries == 3
    assert books.times("deleted") == 0


def test_mount_over_the_root_found_at_the_start(inbox, kind, tmp_path):
    """A service that starts before its mount is there: the state says that something is missing."""
    state = tmp_path / "state.db"
    with tmpfs(inbox):
        _fill(inbox)
        with kind(inbox, recurse=True, state=state) as poller:
            assert poller.get_new_events() == []
    with pytest.raises(TargetMoved, match="accept-root"):
        kind(inbox, recurse=True, state=state)


def test_mount_below_the_root(inbox, watching):
    """Nothing is promised for a mount that comes and goes below, but that it is told as it is seen."""
    put(inbox / "here")
    put(inbox / "m" / "hidden by the mount")
    poller = watching(full_every=0)  # nothing tells of a mount
    books = Books(inbox)
    with tmpfs(inbox / "m"):
        put(inbox / "m" / "inner" / "file")
        assert books.settle(poller) == [(b"m/hidden by the mount", "deleted"), (b"m/inner/file", "created")]
        put(inbox / "m" / "inner" / "file", "changed")
        assert books.settle(poller) == [(b"m/inner/file", "modified")]
    assert books.settle(poller) == [(b"m/hidden by the mount", "created"), (b"m/inner/file", "deleted")]


def test_mounted_before_and_written_to_later(inbox, watching):
    (inbox / "m").mkdir()
    with tmpfs(inbox / "m"):
        poller = watching()
        books = Books(inbox)
        put(inbox / "m" / "inner" / "file")
        assert books.settle(poller) == [(b"m/inner/file", "created")]
        put(inbox / "m" / "inner" / "file", "changed")
        assert books.settle(poller) == [(b"m/inner/file", "modified")]
        poller.close()


# -- a single file -----------------------------------------------------------


def test_single_file_that_comes_and_goes(inbox, watching):
    path = put(inbox / "one.csv")
    poller = watching(path)
    books = Books(inbox)
    for number in range(20):
        put(inbox / f"neighbour{number}")
        assert books.settle(poller) == []
        path.write_text("x" * number)
        assert books.settle(poller) == [(b"one.csv", "modified")]
        path.unlink()
        assert books.settle(poller) == [(b"one.csv", "deleted")]
        assert books.settle(poller) == []
        path.write_text("back")
        assert books.settle(poller) == [(b"one.csv", "created")]
        put(inbox / "new", "by renaming").rename(path)
        assert books.settle(poller) == [(b"one.csv", "modified")]


def test_single_file_that_becomes_a_directory(inbox, watching):
    path = put(inbox / "one.csv")
    poller = watching(path)
    books = Books(inbox)
    path.unlink()
    put(path / "inner")
    assert books.settle(poller) == [(b"one.csv", "deleted")]
    shutil.rmtree(path)
    put(path)
    assert books.settle(poller) == [(b"one.csv", "created")]


def test_single_file_whose_directory_goes_and_comes(inbox, watching):
    path = put(inbox / "one.csv")
    poller = watching(path)
    books = Books(inbox)
    shutil.rmtree(inbox)
    with pytest.raises(TargetNotFound):
        poller.get_new_events()
    put(path, "back again")
    assert books.settle(poller) == [(b"one.csv", "modified")]
    path.write_text("watched again")
    assert books.settle(poller) == [(b"one.csv", "modified")]


def test_single_file_that_is_a_link(tmp_path, inbox, watching):
    put(tmp_path / "r1", "first")
    put(tmp_path / "r2", "second")
    path = inbox / "current.csv"
    path.symlink_to(tmp_path / "r1")
    poller = watching(path, full_every=0)
    books = Books(inbox, {b"current.csv": 5})
    (inbox / "next").symlink_to(tmp_path / "r2")
    os.replace(inbox / "next", path)
    # A link is never closed by a writer; it takes a moment until it is certain that there is none.
    assert books.wait_for(poller, 1) == [(b"current.csv", "modified")]
    put(tmp_path / "r2", "behind the link")
    assert books.settle(poller) == [(b"current.csv", "modified")]
