"""InotifyWatch against the real kernel: what is done to files, and where it says to look then."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import threading
from pathlib import Path

import pytest

from poller_core.listing import Hints, Span, key_span, tree_span
from tests.backends.watched import WHOLE, Tree, holds

pytestmark = pytest.mark.skipif(not Path("/proc/sys/fs/inotify").is_dir(), reason="needs Linux's inotify")

# -- files -----------------------------------------------------------------------------------------


def test_a_file_is_open_until_its_writer_closes_it(tree):
    with (tree.root / "f").open("w") as file:
        assert tree.look() == Hints([key_span(b"f")], False, frozenset())
        assert tree.watch.is_open(b"f")
        file.write("x")
    assert tree.look() == Hints([key_span(b"f")], False, frozenset({b"f"}))
    assert not tree.watch.is_open(b"f")
    assert tree.look() == Hints([], False, frozenset())


def test_a_rewrite_is_hinted_when_it_is_closed(tree):
    (tree.root / "f").write_text("1")
    tree.look()
    with (tree.root / "f").open("a") as file:
        file.write("2")
        file.flush()
        assert tree.look().spans == []
    assert tree.look() == Hints([key_span(b"f")], False, frozenset({b"f"}))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (lambda d: (d / "old").unlink(), [b"old"]),
        (lambda d: (d / "old").chmod(0o600), [b"old"]),
        (lambda d: os.utime(d / "old"), [b"old"]),
        (lambda d: (d / "old").rename(d / "new"), [b"old", b"new"]),
        (lambda d: (d / "old").rename(d / "sub/new"), [b"old", b"sub/new"]),
        (lambda d: (d / "old").rename(d.parent / "out"), [b"old"]),
        (lambda d: (d.parent / "outer").rename(d / "in"), [b"in"]),
        (lambda d: os.link(d / "old", d / "link"), [b"link"]),
        (lambda d: os.symlink("nowhere", d / "dangling"), [b"dangling"]),
        (lambda d: os.mkfifo(d / "fifo"), [b"fifo"]),
        (lambda d: Path(os.fsdecode(bytes(d) + b"/\xff\xfe")).write_text("x"), [b"\xff\xfe"]),
    ],
)
def test_each_change_of_a_file_hints_its_keys_and_no_others(tmp_path, trees, change, keys):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "old").write_text("x")
    (tmp_path / "outer").write_text("x")
    tree = trees(root)
    change(root)
    hints = tree.look()
    assert sorted(hints.spans) == sorted(key_span(key) for key in keys)
    assert not hints.whole


def test_a_file_that_is_moved_is_closed_only_if_its_closing_was_seen(tmp_path, tree):
    (tmp_path / "part").write_text("x")
    (tmp_path / "part").rename(tree.root / "f")
    hints = tree.look()
    assert hints.closed == frozenset()
    assert hints.spans == [key_span(b"f")]
    assert not tree.watch.is_open(b"f")
    (tree.root / "g.part").write_text("x")
    (tree.root / "g.part").rename(tree.root / "g")
    assert tree.look().closed == {b"g"}


def test_an_open_mark_follows_a_renamed_file(tree):
    (tree.root / "sub").mkdir()
    tree.look()
    with (tree.root / "f.part").open("w"):
        (tree.root / "f.part").rename(tree.root / "sub/f")
        hints = tree.look()
        assert hints.closed == frozenset()
        assert not tree.watch.is_open(b"f.part")
        assert tree.watch.is_open(b"sub/f")
    assert tree.look().closed == {b"sub/f"}


def test_a_rename_over_an_open_file_takes_its_mark_away(tree):
    with (tree.root / "f").open("w"):
        (tree.root / "g").write_text("complete")
        (tree.root / "g").rename(tree.root / "f")
        assert tree.look().closed == {b"f"}
        assert not tree.watch.is_open(b"f")
    # The writer of the file that is gone says nothing about the one in its place.
    assert tree.look() == Hints([], False, frozenset())


def test_the_writer_of_a_deleted_file_does_not_close_the_new_one(tree):
    old = (tree.root / "f").open("w")
    (tree.root / "f").unlink()
    with (tree.root / "f").open("w"):
        tree.look()
        old.close()
        assert tree.look().closed == frozenset()
        assert tree.watch.is_open(b"f")
    assert tree.look().closed == {b"f"}


def test_closed_means_the_last_word_in_this_drain(tree):
    (tree.root / "f").write_text("1")
    (tree.root / "f").unlink()
    assert tree.look().closed == frozenset()
    (tree.root / "f").write_text("1")
    (tree.root / "f").unlink()
    with (tree.root / "f").open("w"):
        assert tree.look().closed == frozenset()


def test_hold_and_forget(tree):
    (tree.root / "f").write_text("1")
    tree.look()
    tree.watch.hold_open(b"f")
    assert tree.watch.is_open(b"f")
    tree.watch.forget(b"f")
    assert not tree.watch.is_open(b"f")
    tree.watch.hold_open(b"f")
    with (tree.root / "f").open("a"):
        pass
    assert tree.look().closed == {b"f"}
    assert not tree.watch.is_open(b"f")


def test_a_hold_from_before_the_first_look_is_ended_by_the_writer(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    with (root / "sub/f").open("w"):
        tree = Tree(root)
        try:
            tree.watch.hold_open(b"sub/f")
            tree.look()
            assert tree.watch.is_open(b"sub/f")
        except BaseException:
            tree.watch.close()
            raise
    assert tree.look().closed == {b"sub/f"}
    assert not tree.watch.is_open(b"sub/f")
    tree.watch.close()


def test_catch_up_brings_the_marks_up_to_date_and_keeps_the_hints(tree):
    with (tree.root / "f").open("w"):
        assert not tree.watch.is_open(b"f")
        assert not tree.watch.pending(b"f")
        tree.watch.catch_up()
        assert tree.watch.is_open(b"f")
        assert tree.watch.pending(b"f")
        # The kernel's queue is empty now, but there is something to look at all the same.
        assert tree.watch.wait(0)
        assert select.select([tree.watch], [], [], 0)[0]
        assert tree.look().spans == [key_span(b"f")]
        assert not tree.watch.wait(0)
        assert not tree.watch.pending(b"f")
    tree.watch.catch_up()
    assert tree.look().closed == {b"f"}


# -- directories -----------------------------------------------------------------------------------


def test_files_in_a_new_directory_are_within_the_hint_and_then_watched(tree):
    os.makedirs(tree.root / "a/b/c")
    (tree.root / "a/b/c/f").write_text("x")
    assert tree.look().spans == [tree_span(b"a/")]
    assert tree.watch.watches == 4
    (tree.root / "a/b/c/g").write_text("x")
    assert tree.look() == Hints([key_span(b"a/b/c/g")], False, frozenset({b"a/b/c/g"}))


def test_what_was_open_in_a_new_directory_is_doubted_until_the_look_is_done(tree):
    os.mkdir(tree.root / "a")
    with (tree.root / "a/f").open("w"):
        hints = tree.watch.drain()
        tree.walk(b"a/")
        assert tree.watch.doubted(b"a/f")
        assert not tree.watch.doubted(b"g")
        tree.watch.hold_open(b"a/f")
        tree.watch.looked(hints.spans)
        assert not tree.watch.doubted(b"a/f")
    assert tree.look().closed == {b"a/f"}


def test_all_is_doubted_until_everything_was_listed(tmp_path):
    tree = Tree(tmp_path)
    tree.watch.drain()
    assert tree.watch.doubted(b"f")
    tree.walk()
    tree.watch.looked([key_span(b"f")])
    assert tree.watch.doubted(b"f")
    tree.watch.looked([Span()])
    assert not tree.watch.doubted(b"f")
    tree.watch.close()


def test_a_removed_directory_is_hinted_and_not_watched_any_more(tree):
    os.makedirs(tree.root / "a/b")
    tree.look()
    assert tree.watch.watches == 3
    shutil.rmtree(tree.root / "a")
    assert tree_span(b"a/") in tree.look().spans
    tree.look()
    assert tree.watch.watches == 1


def test_chmod_of_a_directory_hints_all_below_it(tree):
    os.makedirs(tree.root / "a/b")
    tree.look()
    (tree.root / "a").chmod(0o700)
    assert tree.look().spans == [tree_span(b"a/")]
    tree.root.chmod(0o700)
    assert tree.look() == Hints(WHOLE, False, frozenset())


def test_a_tree_that_is_moved_stays_watched_without_a_gap(tree):
    os.makedirs(tree.root / "a/b")
    tree.look()
    writer = (tree.root / "a/b/f").open("w")
    (tree.root / "a").rename(tree.root / "z")
    (tree.root / "z/b/g").write_text("x")
    hints = tree.watch.drain()  # no walk after it: the watches go with the tree
    assert holds(hints, b"a/b/f", b"z/b/f", b"z/b/g")
    assert hints.closed == {b"z/b/g"}
    assert tree.watch.is_open(b"z/b/f")
    assert not tree.watch.is_open(b"a/b/f")
    writer.close()
    assert tree.watch.drain() == Hints([key_span(b"z/b/f")], False, frozenset({b"z/b/f"}))


def test_trees_moved_about_in_one_drain(tree):
    for name in ("a/x", "b/y", "c"):
        os.makedirs(tree.root / name)
    tree.look()
    (tree.root / "a").rename(tree.root / "b/y/a")
    (tree.root / "b/y").rename(tree.root / "c/y")
    (tree.root / "c").rename(tree.root / "d")
    with (tree.root / "d/y/a/x/f").open("w"):
        assert holds(tree.look(), b"a/x", b"b/y/", b"c/", b"d/y/a/x/f")
        assert tree.watch.is_open(b"d/y/a/x/f")
    assert tree.look() == Hints([key_span(b"d/y/a/x/f")], False, frozenset({b"d/y/a/x/f"}))


def test_two_directories_that_swap_names(tree):
    (tree.root / "a").mkdir()
    (tree.root / "b").mkdir()
    tree.look()
    _exchange(tree.root / "a", tree.root / "b")
    assert holds(tree.look(), b"a/f", b"b/f")
    (tree.root / "a/f").write_text("x")
    assert tree.look().spans == [key_span(b"a/f")]
    (tree.root / "b/f").write_text("x")
    assert tree.look().spans == [key_span(b"b/f")]
    tree.look()
    assert tree.watch.watches == 3


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, bytes(one), -100, bytes(other), 2) != 0:
        pytest.skip(f"no RENAME_EXCHANGE here: {os.strerror(ctypes.get_errno())}")


def test_a_tree_that_is_moved_out_is_not_watched_any_more(tmp_path, tree):
    os.makedirs(tree.root / "a/b")
    tree.look()
    with (tree.root / "a/b/f").open("w"):
        (tree.root / "a").rename(tmp_path / "out")
        assert holds(tree.look(), b"a/b/f")
        (tmp_path / "out/b/g").write_text("x")
        assert tree.look() == Hints([], False, frozenset())
        assert tree.watch.watches == 1
    (tmp_path / "out/b/h").write_text("x")
    tree.look()  # takes in the notice that the watches are removed
    (tmp_path / "out/b/i").write_text("x")
    assert not tree.watch.wait(0)


def test_a_tree_that_is_moved_out_and_in_again(tmp_path, tree):
    os.makedirs(tree.root / "a/b")
    tree.look()
    (tree.root / "a").rename(tmp_path / "out")
    (tmp_path / "out").rename(tree.root / "c")
    assert holds(tree.look(), b"a/", b"c/b/f")
    for _ in range(3):
        tree.look()
    assert tree.watch.watches == 3
    (tree.root / "c/b/f").write_text("x")
    assert tree.look().spans == [key_span(b"c/b/f")]


def test_half_a_rename_in_one_drain_and_half_in_the_next(tree):
    """The halves are queued together; so the queue's reading is cut between them by hand."""
    os.makedirs(tree.root / "a/b")
    (tree.root / "f").touch()
    tree.look()
    writer = (tree.root / "g").open("w")
    (tree.root / "a").rename(tree.root / "z")
    (tree.root / "g").rename(tree.root / "h")
    read = tree.watch._queue.read
    events = [event for batch in read() for event in batch]
    from_a, to_z, from_g, to_h = (i for i, event in enumerate(events) if event[1] & (0x40 | 0x80))
    first, second = events[: from_a + 1], events[to_z:]
    second.insert(0, second.pop(from_g - to_z))  # concurrent renames mix like this
    for part in (first, second[: to_h - to_z], second[to_h - to_z :]):
        tree.watch._queue.read = lambda part=part: iter([part])
        tree.watch.drain()
    tree.watch._queue.read = read
    assert tree.watch.is_open(b"h")
    writer.close()
    assert tree.watch.drain().closed == {b"h"}
    (tree.root / "z/b/new").write_text("x")
    assert tree.watch.drain().spans == [key_span(b"z/b/new")]


def test_a_walk_that_is_ahead_of_the_events(tree):
    """a becomes b, and a new a is made; the walk sees both before the queue is read."""
    (tree.root / "a").mkdir()
    tree.look()
    (tree.root / "a").rename(tree.root / "b")
    (tree.root / "a").mkdir()
    tree.walk()
    with (tree.root / "a/f").open("w"), (tree.root / "b/g").open("w"):
        tree.look()
        assert tree.watch.is_open(b"a/f")
        assert tree.watch.is_open(b"b/g")
    assert tree.look().closed == {b"a/f", b"b/g"}
    tree.look()
    assert tree.watch.watches == 3


def test_directories_in_a_circle_while_events_are_old(tree):
    """Old events over a newer walk can make each directory the other's parent for a moment."""
    os.makedirs(tree.root / "a/b")
    tree.look()
    (tree.root / "a/b").rename(tree.root / "b")
    (tree.root / "a").rename(tree.root / "b/a")
    (tree.root / "b/a").rename(tree.root / "a")
    (tree.root / "b").rename(tree.root / "a/b")
    tree.walk()
    hints = tree.look()
    assert holds(hints, b"a/b/", b"b/a/")
    (tree.root / "a/b/f").write_text("x")
    assert tree.look().spans == [key_span(b"a/b/f")]


def test_mkdir_races(tree):
    """Whatever the timing: each file lies in a hint that comes no earlier than the file."""

    def make() -> None:
        for i in range(100):
            os.makedirs(tree.root / f"{i}/a/b")
            (tree.root / f"{i}/a/b/f").write_text("x")

    seen: set[bytes] = set()
    maker = threading.Thread(target=make)
    maker.start()
    while True:
        over = not maker.is_alive()
        hints = tree.watch.drain()
        for span in hints.spans:
            path = os.path.join(os.fsencode(tree.root), span.start)
            if os.path.isdir(path):
                tree.walk(span.start)
                for top, _, files in os.walk(path):
                    seen.update(os.path.relpath(os.path.join(top, name), bytes(tree.root)) for name in files)
            elif os.path.isfile(path.rstrip(b"\0")):
                seen.add(span.start)
        if over and not hints.spans:
            break
    maker.join()
    assert seen == {f"{i}/a/b/f".encode() for i in range(100)}


# -- options ---------------------------------------------------------------------------------------


def test_without_recurse_only_the_key_of_a_directory_is_hinted(trees):
    tree = trees(recurse=False)
    os.makedirs(tree.root / "a/b")
    (tree.root / "a/f").write_text("x")
    (tree.root / "g").write_text("x")
    assert tree.look() == Hints([key_span(b"a/"), key_span(b"g")], False, frozenset({b"g"}))


def test_a_single_file_hints_nothing_else(trees):
    tree = trees(recurse=False, single=b"f")
    (tree.root / "other").write_text("x")
    assert tree.look() == Hints([], False, frozenset())
    with (tree.root / "f.part").open("w"):
        (tree.root / "f.part").rename(tree.root / "f")
        assert tree.look() == Hints([key_span(b"f")], False, frozenset())
        assert tree.watch.is_open(b"f")
    assert tree.look() == Hints([key_span(b"f")], False, frozenset({b"f"}))
    (tree.root / "f").unlink()
    assert tree.look() == Hints([key_span(b"f")], False, frozenset())
    (tree.root / "f").mkdir()
    assert tree.look().spans == [key_span(b"f")]


def test_an_excluded_directory_is_not_hinted(trees):
    tree = trees(enter=lambda prefix: prefix != b"tmp/")
    (tree.root / "tmp").mkdir()
    (tree.root / "kept").mkdir()
    assert tree.look().spans == [tree_span(b"kept/")]


def test_a_followed_directory_is_hinted_under_each_of_its_names(trees, tmp_path):
    tree = trees(follow_symlinks=True)
    (tree.root / "real/sub").mkdir(parents=True)
    os.symlink("real", tree.root / "link")
    assert holds(tree.look(), b"link", b"link/sub/f", b"real/sub/f")
    (tree.root / "real/sub/f").write_text("x")
    both = {b"link/sub/f", b"real/sub/f"}
    hints = tree.look()
    assert holds(hints, *both)
    assert hints.closed == both
    (tree.root / "link").rename(tree.root / "other")
    assert holds(tree.look(), b"link/sub/f", b"other/sub/f")
    (tree.root / "real/sub/g").write_text("x")
    assert tree.look().closed == {b"other/sub/g", b"real/sub/g"}
    (tree.root / "other").unlink()
    assert holds(tree.look(), b"other", b"other/sub/f")
    (tree.root / "real/sub/h").write_text("x")
    hints = tree.look()
    assert hints.closed == {b"real/sub/h"}
    assert not holds(hints, b"other/sub/h")


def test_links_in_a_circle(trees):
    tree = trees(follow_symlinks=True)
    (tree.root / "x").mkdir()
    (tree.root / "y").mkdir()
    os.symlink("../y", tree.root / "x/y")
    os.symlink("../x", tree.root / "y/x")
    tree.look()
    tree.look()
    (tree.root / "x/f").write_text("x")
    assert tree.look().closed == {b"x/f", b"y/x/f"}
