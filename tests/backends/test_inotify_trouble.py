"""InotifyWatch when events are lost, limits are reached, roots go away, and trees are very large."""

from __future__ import annotations

import errno
import logging
import os
import select
import shutil
import subprocess
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from poller_core.backends import eventqueue
from poller_core.backends.inotify import InotifyWatch
from poller_core.errors import PollerClosed, PollerRefused
from poller_core.listing import Hints, Span, key_span, tree_span
from tests.backends.watched import WHOLE

pytestmark = pytest.mark.skipif(not Path("/proc/sys/fs/inotify").is_dir(), reason="needs Linux's inotify")

# -- losses ----------------------------------------------------------------------------------------


def test_an_overflow_hints_everything_and_keeps_the_open_marks(tree, caplog):
    held = (tree.root / "held").open("w")
    tree.look()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the queue is too long to fill it here")
    for i in range(limit // 2 + 2000):
        os.close(os.open(tree.root / str(i), os.O_CREAT | os.O_WRONLY))
    with caplog.at_level(logging.WARNING):
        hints = tree.watch.drain()
    assert hints == Hints(WHOLE, True, frozenset())
    assert tree.watch.overflows == 1
    assert "fs.inotify.max_queued_events" in caplog.text
    assert tree.watch.is_open(b"held")
    assert tree.watch.doubted(b"held")
    assert not tree.watch.is_open(b"0")
    tree.walk()
    tree.watch.looked(hints.spans)
    assert tree.watch.is_open(b"held")
    assert not tree.watch.doubted(b"held")
    held.close()
    assert tree.look() == Hints([key_span(b"held")], False, frozenset({b"held"}))


def test_a_loss_during_a_look_leaves_the_doubts(tree):
    hints = tree.watch.drain()
    tree.watch.reset()
    tree.watch.looked([*hints.spans, Span()])
    assert tree.watch.doubted(b"f")
    assert tree.look().whole
    assert not tree.watch.doubted(b"f")


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_root_that_goes_away_and_comes_back(tmp_path, tree, how):
    (tree.root / "sub").mkdir()
    tree.look()
    if how == "removed":
        shutil.rmtree(tree.root)
    else:
        tree.root.rename(tmp_path / "elsewhere")
    assert tree.watch.wait(10)
    assert tree.watch.drain() == Hints(WHOLE, True, frozenset())
    assert tree.watch.watches == 0
    tree.root.mkdir()
    tree.walk()
    tree.watch.looked(WHOLE)
    (tree.root / "f").write_text("x")
    assert tree.look().closed == {b"f"}


def test_another_root_in_its_place_starts_over(tmp_path, trees):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
    os.symlink("one", tmp_path / "link")
    tree = trees(tmp_path / "link")
    os.symlink("two", tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "link")
    tree.walk()  # nobody called reset()
    assert tree.look().whole
    (tmp_path / "two/sub/f").write_text("x")
    (tmp_path / "one/sub/f").write_text("x")
    assert tree.look().spans == [key_span(b"sub/f")]


def test_reset_forgets_the_watches_and_keeps_the_descriptor(tree):
    (tree.root / "sub").mkdir()
    tree.look()
    fd = tree.watch.fileno()
    tree.watch.reset()
    assert tree.watch.watches == 0
    assert tree.watch.wait(0)
    assert tree.look().whole
    assert tree.watch.watches == 2
    assert tree.watch.fileno() == fd
    assert not select.select([fd], [], [], 0)[0]
    (tree.root / "sub/f").write_text("x")
    assert select.select([fd], [], [], 10)[0]
    assert tree.look().spans == [key_span(b"sub/f")]


# -- what can't be watched -------------------------------------------------------------------------


class Refusing(eventqueue.EventQueue):
    """A fake: the real limit holds for all programs of a user, so one test can't lower it for itself."""

    room = 3
    error = errno.ENOSPC

    def add_watch(self, path: str, mask: int) -> int:
        if self.room <= 0:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= 1
        return super().add_watch(path, mask)


@pytest.fixture
def refusing(monkeypatch):
    monkeypatch.setattr("poller_core.backends.inotify.EventQueue", Refusing)


def test_what_the_limit_leaves_out_is_unwatched_until_it_can_be_watched(tmp_path, trees, refusing, caplog):
    for name in ("a/x", "b/y", "c"):
        (tmp_path / "root" / name).mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        tree = trees()
    assert tree.watch.watches == 3  # the root, a, a/x
    # b/ ends where b0 begins: the two spans don't touch.
    assert tree.watch.unwatched == [tree_span(b"b/"), tree_span(b"c/")]
    assert tree.watch.doubted(b"b/y/f")
    assert not tree.watch.is_open(b"b/f")
    assert len(caplog.records) == 1
    assert "sysctl fs.inotify.max_user_watches=" in caplog.text

    tree.watch._queue.room = 1000
    tree.watch.drain()
    tree.walk(b"c/")
    tree.watch.looked([tree_span(b"c/")])
    assert tree.watch.unwatched == [tree_span(b"b/")]
    tree.watch.drain()
    tree.walk(b"b/")
    assert tree.watch.unwatched == [tree_span(b"b/")]  # that look may still fail
    tree.watch.looked(tree.watch.unwatched)
    assert tree.watch.unwatched == []
    (tree.root / "b/y/f").write_text("x")
    assert tree.look().spans == [key_span(b"b/y/f")]


def test_very_many_unwatched_directories_become_the_whole_target(tmp_path, trees, refusing):
    for i in range(1100):
        (tmp_path / "root" / str(i)).mkdir(parents=True)
    tree = trees()
    assert tree.watch.unwatched == WHOLE
    tree.watch._queue.room = 5000
    tree.watch.drain()
    tree.walk()
    tree.watch.looked(tree.watch.unwatched)
    assert tree.watch.unwatched == []
    assert tree.watch.watches == 1101


def test_a_root_that_can_not_be_watched(tmp_path, trees, monkeypatch, refusing):
    monkeypatch.setattr(Refusing, "room", 0)
    monkeypatch.setattr(Refusing, "error", errno.EACCES)
    (tmp_path / "root/sub").mkdir(parents=True)
    tree = trees()
    assert tree.watch.unwatched == WHOLE
    assert tree.watch.watches == 0
    assert tree.look() == Hints([], False, frozenset())


def test_a_file_system_that_tells_nothing_is_left_to_scanning(tree, caplog):
    fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with caplog.at_level(logging.WARNING):
            for prefix in (b"p/", b"q/"):
                tree.watch.on_directory(prefix, fd, os.fstat(fd).st_dev)
    finally:
        os.close(fd)
    assert tree.watch.unwatched == [tree_span(b"p/"), tree_span(b"q/")]
    assert tree.watch.watches == 1
    assert len(caplog.records) == 1


def test_no_instance_left_is_a_refusal_that_says_what_to_raise():
    watches = []
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 2000:
        pytest.skip("too many instances are allowed to use them up")
    try:
        with pytest.raises(PollerRefused, match=r"fs\.inotify\.max_user_instances"):  # noqa: PT012
            for _ in range(limit + 1):
                watches.append(InotifyWatch(False))
    finally:
        for watch in watches:
            watch.close()


def test_a_refusal_leaves_nothing_open(monkeypatch):
    def refuse(nonblocking: bool) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("inotify_simple.INotify", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PollerRefused):
        InotifyWatch(False)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_no_instance_left_at_a_reset_means_scanning_until_there_is_one(tree, monkeypatch):
    (tree.root / "sub").mkdir()
    tree.look()
    with monkeypatch.context() as patch:
        patch.setattr("inotify_simple.INotify", _no_more)
        tree.watch.reset()
        assert tree.look().whole
        for _ in range(2):
            assert tree.look() == Hints([], False, frozenset())
            assert tree.watch.unwatched == WHOLE
            assert tree.watch.doubted(b"f")
        tree.watch.catch_up()
        assert not tree.watch.wait(0)
    assert tree.look().whole
    assert tree.watch.unwatched == []
    (tree.root / "sub/f").write_text("x")
    assert tree.look().spans == [key_span(b"sub/f")]


def _no_more(nonblocking: bool) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_without_the_library_it_refuses(monkeypatch):
    monkeypatch.setattr(eventqueue, "inotify_simple", None)
    with pytest.raises(PollerRefused, match="pip install inotify_simple"):
        InotifyWatch(True)


# -- waiting ---------------------------------------------------------------------------------------


def test_wait_ends_for_events_and_for_the_time(tree):
    assert not tree.watch.wait(0)
    start = time.monotonic()
    assert not tree.watch.wait(0.05)
    assert time.monotonic() - start >= 0.049
    (tree.root / "f").write_text("x")
    assert tree.watch.wait(10)
    tree.look()
    assert not tree.watch.wait(0)


def test_wake_from_another_thread(tree):
    done: list[bool] = []
    waiter = threading.Thread(target=lambda: done.append(tree.watch.wait(None)))
    waiter.start()
    tree.watch.wake()
    waiter.join(30)
    assert done == [True]
    assert not tree.watch.wait(0)  # one wake, one wait
    tree.watch.wake()
    assert tree.watch.drain().spans == []
    assert tree.watch.wait(None)  # a drain between does not swallow it


def test_close_ends_a_wait_and_can_be_repeated(tmp_path):
    watch = InotifyWatch(True)
    watch.drain()
    before = set(os.listdir("/proc/self/fd"))
    done: list[bool] = []
    waiter = threading.Thread(target=lambda: done.append(watch.wait(None)))
    waiter.start()
    deadline = time.monotonic() + 30
    while not watch._queue._waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    watch.close()
    waiter.join(30)
    assert done == [False]
    assert len(set(os.listdir("/proc/self/fd"))) == len(before) - 4
    watch.close()
    watch.wake()
    with pytest.raises(PollerClosed):
        watch.wait(0)
    with pytest.raises(PollerClosed):
        watch.drain()


def test_a_child_after_a_fork_leaves_the_parents_queue_alone(tree):
    (tree.root / "sub").mkdir()
    tree.look()
    (tree.root / "before").write_text("x")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert tree.watch.wait(0)
            assert tree.look() == Hints(WHOLE, True, frozenset())
            (tree.root / "sub/by child").write_text("x")
            assert tree.look().closed == {b"sub/by child"}
            tree.watch.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tree.look().closed == {b"before", b"sub/by child"}
    (tree.root / "sub/after").write_text("x")
    assert tree.watch.wait(10)
    assert tree.look().spans == [key_span(b"sub/after")]


# -- size ------------------------------------------------------------------------------------------


def test_deep_chains(tree):
    """Deeper than PATH_MAX: the watch is set through the descriptor, never by path."""
    depth = 1500
    fd = os.open(tree.root, os.O_RDONLY)
    device = os.fstat(fd).st_dev
    prefix = b""
    try:
        for _ in range(depth):
            os.mkdir("dir", dir_fd=fd)
            inner = os.open("dir", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
            prefix += b"dir/"
            tree.watch.on_directory(prefix, fd, device)
        tree.watch.drain()
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert tree.watch.drain().closed == {prefix + b"f"}
    finally:
        os.close(fd)
        # shutil calls itself for each level: too many of them for Python.
        subprocess.run(["rm", "-rf", tree.root], check=True)


def test_memory_of_many_directories(tmp_path, request):
    """A hundred thousand take 20 MiB or so. Measured on a part of it, on made-up watch numbers."""
    from poller_core.backends.watchtree import WatchTree, join

    count = 20_000
    tracemalloc.start()
    try:
        tree = WatchTree()
        tree.set_root(0)
        for wd in range(1, count + 1):
            tree.attach(wd, join((wd - 1) // 100, b"2026-11-%06d" % wd))
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert tree.prefixes(count) == [b"2026-11-000001/2026-11-000199/2026-11-020000/"]
    assert each < 400
