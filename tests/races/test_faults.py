"""What goes wrong with what is watched: no permission, sick disks, coarse clocks, too many events."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from poller_core import (
    AccessDenied,
    INotifyPoller,
    TargetError,
)
from tests.faultfs import FaultFileSystem
from tests.races.tools import Books, open_place, put, unprivileged

# -- permissions -------------------------------------------------------------


@pytest.mark.parametrize("stated", [False, True], ids=["memory", "state"])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=["none", "no-search", "no-list"])
def test_unreadable_directory_changes_nothing(kind, mode, stated):
    with open_place() as place:

        def scenario() -> object:
            inbox = place / "inbox"
            for name in ("a/before", "m/closed/one", "m/closed/two", "m/open", "z/after"):
                put(inbox / name)
            closed = inbox / "m" / "closed"
            with kind(
                inbox, recurse=True, state=place / "state.db" if stated else None, full_every=0
            ) as poller:
                books = Books(inbox)
                told = []
                (closed / "one").unlink()
                put(closed / "three")
                closed.chmod(mode)
                try:
                    put(inbox / "a" / "new")
                    (inbox / "z" / "after").unlink()
                    for _ in range(3):
                        told.append(books.settle(poller))
                    status = poller.status()
                finally:
                    closed.chmod(0o755)
                told.append(sorted(books.settle(poller)))
                books.agree()
                put(closed / "four")
                told.append(books.settle(poller))
                return told, status.gaps, status.errors, poller.status().gaps

        told, gaps, errors, gaps_after = unprivileged(scenario)
    assert told[0] == [(b"a/new", "created"), (b"z/after", "deleted")]
    assert told[1] == told[2] == []
    assert gaps >= 1
    assert any("m/closed" in error and "Permission denied" in error for error in errors)
    assert told[3] == [(b"m/closed/one", "deleted"), (b"m/closed/three", "created")]
    assert told[4] == [(b"m/closed/four", "created")]
    assert gaps_after == 0


def test_readable_again_is_noticed_without_a_full_listing():
    """What could not be read is tried again at every look, also where inotify tells where to look."""
    with open_place() as place:

        def scenario() -> object:
            inbox = place / "inbox"
            put(inbox / "closed" / "one")
            (inbox / "closed").chmod(0)
            with INotifyPoller(inbox, recurse=True) as poller:
                books = Books(inbox, {})
                first = books.settle(poller), poller.status().gaps
                (inbox / "closed").chmod(0o755)
                second = books.settle(poller), poller.status().gaps
                put(inbox / "closed" / "one", "changed")
                return first, second, books.settle(poller)

        first, second, third = unprivileged(scenario)
    assert first == ([], 1)
    # It was not known at the baseline, so it is new.
    assert second == ([(b"closed/one", "created")], 0)
    assert third == [(b"closed/one", "modified")]


def test_unreadable_root_is_an_error(kind):
    with open_place() as place:

        def scenario() -> object:
            inbox = place / "inbox"
            put(inbox / "one")
            with kind(inbox, recurse=True) as poller:
                inbox.chmod(0)
                try:
                    poller.get_new_events()
                except AccessDenied as error:
                    message = str(error)
                else:
                    return "no error"
                finally:
                    inbox.chmod(0o755)
                put(inbox / "two")
                return message, [tuple(event)[1] for event in poller.get_new_events()]

        message, told = unprivileged(scenario)
    assert "inbox" in message
    assert "read and search permission" in message
    assert told == ["created"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM, errno.EMFILE])
def test_listing_that_fails_deletes_nothing(inbox, kind, number):
    """The errors of sick disks and servers, which only a fake can show."""
    for name in ("a", "d/1", "d/e/2", "z"):
        put(inbox / name)
    fs = FaultFileSystem()
    with kind(inbox, recurse=True, fs=fs, full_every=0) as poller:
        books = Books(inbox)
        for call in ("open_dir", "listdir", "scandir"):
            fs.fail(call, b"d", number)
        (inbox / "a").unlink()
        (inbox / "d" / "1").unlink()
        put(inbox / "d" / "e" / "2", "changed")
        assert books.settle(poller) == [(b"a", "deleted")]
        assert poller.status().gaps
        fs.rules.clear()
        assert books.settle(poller) == [(b"d/1", "deleted"), (b"d/e/2", "modified")]
        assert not poller.status().gaps
        books.agree()


def test_what_could_not_be_read_is_tried_again_without_a_hint(inbox):
    """A server that was away for a moment: nothing tells inotify that it is back."""
    put(inbox / "d" / "one")
    fs = FaultFileSystem()
    for call in ("open_dir", "listdir", "scandir"):
        fs.fail(call, b"d", errno.EIO)
    with INotifyPoller(inbox, recurse=True, fs=fs) as poller:
        books = Books(inbox, {})
        assert books.settle(poller) == []
        assert poller.status().gaps == 1
        fs.rules.clear()
        assert books.settle(poller) == [(b"d/one", "created")]
        assert poller.status().gaps == 0


def test_root_that_is_replaced_in_the_middle_of_a_look(tmp_path, kind):
    """Whose listing it is can't be told any more, so it counts for nothing."""
    for release in ("r1", "r2"):
        put(tmp_path / release / f"only-{release}")
    current = tmp_path / "current"
    current.symlink_to("r1")

    def switch(where: bytes) -> None:
        (tmp_path / "next").symlink_to("r2")
        (tmp_path / "next").rename(current)

    fs = FaultFileSystem()
    with kind(current, recurse=True, fs=fs, full_every=0) as poller:
        books = Books(current)
        put(tmp_path / "r1" / "new in r1")
        fs.before("lstat", b"new in r1", switch)
        with pytest.raises(TargetError, match="replaced while it was listed"):
            poller.get_new_events()
        assert poller.status().last_seq == 0
        assert set(books.settle(poller)) == {(b"only-r1", "deleted"), (b"only-r2", "created")}


def test_absence_that_cant_be_proven_deletes_nothing(inbox, kind):
    """The listing leaves a name out, as that of a busy server may; only a second look may call it gone."""
    put(inbox / "d" / "one")
    put(inbox / "d" / "two")
    fs = FaultFileSystem()
    hidden = [False]
    real = fs.listdir

    def listdir(fd):
        return [name for name in real(fd) if not (hidden[0] and os.fsencode(name) == b"one")]

    fs.listdir = listdir  # type: ignore[method-assign]
    with kind(inbox, recurse=True, fs=fs, full_every=0) as poller:
        books = Books(inbox)
        hidden[0] = True
        assert books.settle(poller) == []
        hidden[0] = False
        (inbox / "d" / "one").unlink()
        assert books.settle(poller) == [(b"d/one", "deleted")]


@pytest.mark.parametrize("settle", [0, 0.2])
def test_timestamps_of_whole_seconds(inbox, kind, settle, monkeypatch):
    """Changes within one second where only whole ones are kept; a fake, as most disks do better."""
    from poller_core.backends import file as backend

    monkeypatch.setattr(backend, "granularity_ns", lambda fstype, release=None: 1_100_000_000)
    fs = FaultFileSystem()
    fs.granularity_ns = 10**9
    put(inbox / "data", "aaaa")
    with kind(inbox, recurse=True, fs=fs, full_every=0, settle=settle) as poller:
        books = Books(inbox)
        with open(inbox / "data", "r+b") as file:
            file.write(b"bbbb")
        assert books.wait_for(poller, 1) == [(b"data", "modified")]
        # What was reported was quiet for longer than a second: a further write shows.
        with open(inbox / "data", "r+b") as file:
            file.write(b"cccc")
        assert books.wait_for(poller, 1) == [(b"data", "modified")]


# -- too many events ---------------------------------------------------------


def test_queue_overflow(inbox, tmp_path):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"inotify's queue is too long to overflow here: {limit}")
    for name in range(20):
        put(inbox / "old" / str(name))
    with INotifyPoller(inbox, recurse=True, state=tmp_path / "state.db") as poller:
        books = Books(inbox)
        for number in range(limit // 4):
            path = inbox / f"f{number % 50}"
            for _ in range(5):
                path.touch()
                path.unlink()
        for number in range(500):
            put(inbox / "new" / str(number % 9) / str(number))
        (inbox / "old" / "3").unlink()
        put(inbox / "old" / "4", "changed")
        books.settle(poller)
        assert poller.status().overflows == 1
        books.agree()
        assert Counter(name for _, name in books.told) == {"created": 500, "modified": 1, "deleted": 1}
        put(inbox / "new" / "5" / "later")
        assert books.settle(poller) == [(b"new/5/later", "created")]
        assert poller.status().overflows == 1


def test_watches_run_out(inbox, tmp_path, caplog, monkeypatch):
    """The limit is the whole user's, so it is made up: from the tenth directory on the kernel says no."""
    from poller_core.backends.eventqueue import EventQueue

    real, count = EventQueue.add_watch, [0]

    def add_watch(self, path, mask):
        count[0] += 1
        if count[0] > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, path, mask)

    monkeypatch.setattr(EventQueue, "add_watch", add_watch)
    for number in range(30):
        put(inbox / f"d{number:02}" / "in" / "one")
    with INotifyPoller(inbox, recurse=True, state=tmp_path / "state.db") as poller:
        books = Books(inbox)
        for number in range(30):
            put(inbox / f"d{number:02}" / "in" / "one", "changed")
            put(inbox / f"d{number:02}" / "two")
        told = books.settle(poller)
        assert len(told) == 60
        put(inbox / "d29" / "in" / "three")
        assert books.settle(poller) == [(b"d29/in/three", "created")]
        books.agree()
    text = caplog.text
    assert text.count("max_user_watches") == 1
    assert "sysctl fs.inotify.max_user_watches=" in text
