"""Files that take their time: reported when they are complete, and not before.

inotify tells when a writer closes; a scan waits until a file has been quiet for
``settle`` seconds. Nothing here measures how soon a report comes, only that it
does not come before it may.
"""

from __future__ import annotations

import math
import mmap
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller_core import FilePoller, INotifyPoller, local
from poller_core.backends import openfiles
from tests.races.tools import Books, other_process, put, tmpfs

#: For so long the poller trusts a mark of "open" without looking who has the file open ...
_TRUSTED = 0.3
#: ... so this is longer.
_LONG = 0.7

_WRITER = """
import sys
file = open(sys.argv[1], "ab", buffering=0)
for line in sys.stdin:
    if line == "close\\n":
        file.close()
    else:
        file.write(line.encode())
    print("done", flush=True)
"""


@pytest.fixture(autouse=True)
def short_trust(monkeypatch):
    """Less patience than usual, so that the tests need not have it either."""
    monkeypatch.setattr(local, "_PAUSE", _TRUSTED)


class _Slow:
    """A writer in a process of its own, that does as it is told."""

    def __init__(self, process) -> None:
        self._process = process

    def write(self, text: str) -> None:
        assert "\n" not in text
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self.write("close")


@pytest.fixture
def slowly():
    """Open a file in another process, which closes it when it is told to, or at the end of the test."""
    running = []

    def begin(path: Path) -> _Slow:
        context = other_process(_WRITER, path)
        writer = _Slow(context.__enter__())
        running.append(context)
        writer.write("first line")
        return writer

    yield begin
    for context in running:
        context.__exit__(None, None, None)


def _ask_for(poller: FilePoller, books: Books, seconds: float) -> list[tuple[bytes, str]]:
    told = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told += books.enter(poller.get_new_events())
        time.sleep(0.05)
    return told


# -- inotify -----------------------------------------------------------------


@pytest.fixture
def notified(inbox, state):
    """Makes pollers that go by inotify, and closes them."""
    made = []

    def make(url: Any = inbox, **options: Any) -> INotifyPoller:
        made.append(INotifyPoller(url, **{"recurse": True, "state": state, **options}))
        return made[-1]

    yield make
    for poller in made:
        poller.close()


@pytest.mark.parametrize("options", [{}, {"fingerprint": ["size", "mtime"]}], ids=["usual", "without-inode"])
def test_not_reported_until_it_is_closed(inbox, notified, slowly, options):
    poller = notified(**options)
    books = Books(inbox)
    writer = slowly(inbox / "slow.csv")
    assert _ask_for(poller, books, _LONG) == []
    writer.write("second line")
    assert _ask_for(poller, books, 0.2) == []
    writer.close()
    assert books.wait_for(poller, 1) == [(b"slow.csv", "created")]
    books.agree()
    assert _ask_for(poller, books, 0.2) == []


def test_below_another_mount_neither(inbox, notified, slowly):
    (inbox / "m").mkdir()
    with tmpfs(inbox / "m"):
        poller = notified()
        books = Books(inbox)
        writer = slowly(inbox / "m" / "slow.csv")
        assert _ask_for(poller, books, _LONG) == []
        writer.close()
        assert books.wait_for(poller, 1) == [(b"m/slow.csv", "created")]
        poller.close()


def test_appending_is_reported_when_it_is_closed(inbox, notified, slowly):
    put(inbox / "log", "old")
    poller = notified()
    books = Books(inbox)
    writer = slowly(inbox / "log")
    assert _ask_for(poller, books, 0.3) == []
    writer.close()
    assert books.wait_for(poller, 1) == [(b"log", "modified")]
    books.agree()


@pytest.mark.parametrize("options", [{}, {"fingerprint": ["size", "mtime"]}], ids=["usual", "without-inode"])
def test_writer_that_was_there_before_the_poller(inbox, tmp_path, slowly, options):
    """The poller is started again while the file is half-written: it can't know, so it looks."""
    options = {"recurse": True, "state": tmp_path / "state.db", **options}
    with INotifyPoller(inbox, **options) as poller:
        books = Books(inbox)
        writer = slowly(inbox / "slow.csv")
        assert books.enter(poller.get_new_events()) == []
    for _ in range(3):
        with INotifyPoller(inbox, **options) as poller:
            assert _ask_for(poller, books, 0.3) == []
    with INotifyPoller(inbox, **options) as poller:
        assert _ask_for(poller, books, _LONG) == []
        writer.close()
        assert books.wait_for(poller, 1) == [(b"slow.csv", "created")]
        books.agree()


def test_closed_while_no_poller_ran(inbox, tmp_path, slowly):
    options = {"recurse": True, "state": tmp_path / "state.db"}
    with INotifyPoller(inbox, **options) as poller:
        books = Books(inbox)
        writer = slowly(inbox / "slow.csv")
        assert books.enter(poller.get_new_events()) == []
    writer.write("and more")
    writer.close()
    with INotifyPoller(inbox, **options) as poller:
        assert books.wait_for(poller, 1) == [(b"slow.csv", "created")]


@pytest.mark.parametrize("looks", [True, False], ids=["seen-before", "not-seen"])
def test_renamed_while_it_is_open(inbox, notified, slowly, looks):
    poller = notified()
    books = Books(inbox)
    writer = slowly(inbox / "before")
    if looks:
        assert books.enter(poller.get_new_events()) == []
    (inbox / "before").rename(inbox / "after")
    assert _ask_for(poller, books, _LONG) == []
    writer.write("more")
    writer.close()
    assert books.wait_for(poller, 1) == [(b"after", "created")]
    books.agree()


def test_moved_in_while_it_is_open(tmp_path, inbox, notified, slowly):
    """Who moves a file in says that it is complete. If it is not, it is modified later."""
    poller = notified()
    books = Books(inbox)
    writer = slowly(tmp_path / "outside")
    (tmp_path / "outside").rename(inbox / "inside")
    told = _ask_for(poller, books, 0.3)
    writer.write("more")
    writer.close()
    if not told:
        told = books.wait_for(poller, 1)
    else:
        books.wait_for(poller, 1)
    assert told == [(b"inside", "created")]
    books.agree()


def test_directory_renamed_while_a_file_in_it_is_open(inbox, notified, slowly):
    (inbox / "d" / "e").mkdir(parents=True)
    poller = notified()
    books = Books(inbox)
    writer = slowly(inbox / "d" / "e" / "slow")
    assert books.enter(poller.get_new_events()) == []
    (inbox / "d").rename(inbox / "moved")
    assert _ask_for(poller, books, 0.5) == []
    writer.close()
    assert books.wait_for(poller, 1) == [(b"moved/e/slow", "created")]


def test_renamed_over_while_another_is_open(inbox, notified, slowly):
    """What is open has lost its name; the complete file that has it now need not wait."""
    poller = notified()
    books = Books(inbox)
    writer = slowly(inbox / "data")
    assert books.enter(poller.get_new_events()) == []
    put(inbox / "new", "complete")
    (inbox / "new").rename(inbox / "data")
    assert books.wait_for(poller, 1) == [(b"data", "created")]
    writer.close()
    assert _ask_for(poller, books, 0.3) == []


def test_two_writers(inbox, notified, slowly):
    """The first to close is no proof that the file is complete, but the last one is told of."""
    poller = notified()
    books = Books(inbox)
    one, two = slowly(inbox / "data"), slowly(inbox / "data")
    one.close()
    _ask_for(poller, books, 0.2)
    two.write("the rest")
    two.close()
    if books.known.get(b"data") != len(b"first line") * 2 + len(b"the rest"):
        books.wait_for(poller, 1)
    books.agree()


def test_made_without_ever_being_open_for_writing(inbox, notified):
    poller = notified()
    books = Books(inbox)
    os.close(os.open(inbox / "lock", os.O_RDONLY | os.O_CREAT | os.O_EXCL))
    os.mknod(inbox / "node", 0o600)
    nameless = os.open(inbox, os.O_WRONLY | os.O_TMPFILE)
    os.write(nameless, b"content")
    # Without a directory's descriptor older Pythons don't follow the link.
    somewhere = os.open(inbox, os.O_RDONLY)
    os.link(f"/proc/self/fd/{nameless}", inbox / "linked", src_dir_fd=somewhere, follow_symlinks=True)
    os.close(somewhere)
    os.close(nameless)
    assert sorted(books.wait_for(poller, 3)) == [
        (b"linked", "created"),
        (b"lock", "created"),
        (b"node", "created"),
    ]


def test_closed_while_it_is_asked_who_writes(inbox, notified, monkeypatch):
    """In a directory that is new: a file is listed, then written, closed, and asked for in /proc."""
    poller = notified()
    books = Books(inbox)
    file = None

    def ask(*arguments):
        if file is not None and not file.closed:
            file.write("whole")
            file.close()
        return openfiles.open_writers(*arguments)

    monkeypatch.setattr(local, "open_writers", ask)
    (inbox / "new").mkdir()
    file = open(inbox / "new" / "file", "w")  # noqa: SIM115
    events = books.wait_for(poller, 1)
    assert file.closed
    assert events == [(b"new/file", "created")]
    books.agree()
    assert poller.get_new_events() == []


def test_our_own_process_writes(inbox, notified):
    poller = notified()
    books = Books(inbox)
    with open(inbox / "mine", "w") as file:
        file.write("half")
        file.flush()
        assert _ask_for(poller, books, _LONG) == []
        file.write("whole")
    assert books.wait_for(poller, 1) == [(b"mine", "created")]


# -- scanning ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [FilePoller, INotifyPoller])
def test_settle_waits_until_it_is_quiet(inbox, kind, slowly, tmp_path):
    """Looked at often enough, a file that grows again and again is reported once, with all it has."""
    settle = 0.6
    with kind(inbox, recurse=True, settle=settle, state=tmp_path / "state.db") as poller:
        books = Books(inbox)
        writer = slowly(inbox / "slow.csv")
        for _ in range(6):
            if kind is INotifyPoller:
                break
            time.sleep(0.1)
            before = time.monotonic()
            writer.write("more")
            told = books.enter(poller.get_new_events())
            assert told == [] or time.monotonic() - before >= settle
        writer.close()
        last = time.monotonic()
        assert poller.get_new_events() == [] or time.monotonic() - last >= settle
        assert poller.status().held == 1
        assert books.wait_for(poller, 1) == [(b"slow.csv", "created")]
        assert time.monotonic() - last >= settle - 0.05
        books.agree()


def test_settle_survives_a_restart(inbox, kind, tmp_path):
    options = {"recurse": True, "settle": 0.5, "state": tmp_path / "state.db"}
    with kind(inbox, **options) as poller:
        books = Books(inbox)
        put(inbox / "new")
        assert books.enter(poller.get_new_events()) == []
    with kind(inbox, **options) as poller:
        assert books.wait_for(poller, 1) == [(b"new", "created")]
        put(inbox / "new", "changed")
        assert books.enter(poller.get_new_events()) == []
    with kind(inbox, **options) as poller:
        assert books.wait_for(poller, 1) == [(b"new", "modified")]
        books.agree()


@pytest.mark.parametrize("timeout", [None, math.inf, 60, timedelta(minutes=1)])
def test_waiting_ends_when_what_is_held_may_be_quiet(inbox, kind, tmp_path, timeout):
    with kind(inbox, settle=0.4, state=tmp_path / "state.db") as poller:
        put(inbox / "new")
        assert poller.get_new_events() == []
        told: list = []
        while not told:
            assert poller.wait(timeout)
            told = poller.get_new_events()
        assert [event.key for event in told] == [b"new"]
        assert not poller.wait(0)


def test_comes_and_goes_while_it_is_held(inbox, kind, tmp_path):
    with kind(inbox, settle=0.4, state=tmp_path / "state.db") as poller:
        books = Books(inbox)
        put(inbox / "short-lived")
        assert books.enter(poller.get_new_events()) == []
        (inbox / "short-lived").unlink()
        assert books.settle(poller) == []
        assert poller.status().held == 0


# -- what inotify does not see -----------------------------------------------


def test_write_through_a_mapping_is_found_by_a_full_listing(inbox, watching):
    path = put(inbox / "mapped", b"\0" * 4096)
    poller = watching(full_every=0)
    books = Books(inbox)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 4096) as view:
        view[:5] = b"first"
        view.flush()
    assert books.wait_for(poller, 1) == [(b"mapped", "modified")]
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 4096) as view:
        os.close(descriptor)
        books.settle(poller)
        books.told.clear()
        view[:6] = b"second"
        view.flush()
    assert (b"mapped", "modified") in (books.told or books.wait_for(poller, 1))


def test_truncated_by_name_is_found_by_a_full_listing(inbox, watching):
    path = put(inbox / "data", "long text")
    poller = watching(full_every=0)
    books = Books(inbox)
    os.truncate(path, 3)
    assert books.wait_for(poller, 1) == [(b"data", "modified")]
    books.agree()


@pytest.mark.parametrize("origin", ["outside", "a new directory", "known and appended to"])
def test_a_file_that_is_renamed_while_it_is_written_is_held(tmp_path, origin):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    source = {"outside": outside / "x", "a new directory": root / "d" / "x"}.get(origin, root / "x")
    if origin == "known and appended to":
        source.write_text("old")
    with INotifyPoller(root, recurse=True) as poller:
        source.parent.mkdir(exist_ok=True)
        with open(source, "ab", buffering=0) as file:
            file.write(b"half")
            source.rename(root / "y")
            assert [event.key for event in poller.get_new_events() if event.event != "deleted"] == []
            file.write(b"whole")
        assert [(event.key, event.event) for event in poller.get_new_events()] == [(b"y", "created")]
