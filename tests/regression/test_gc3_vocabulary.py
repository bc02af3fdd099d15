"""The published behaviour of ``gc3libs.poller``, and what it is known to get wrong.

The first half is the vocabulary that programs written for it rely on: the same
names, arguments and pairs. The second half has one test for each failure that
its documentation warns of, or that follows from how it works; these pollers
have to pass them.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import poller_core
from poller_core import FilePoller, INotifyPoller, Poller, Url, make_poller
from tests.races.tools import Books, put, watchable


@pytest.fixture
def inbox(tmp_path):
    with watchable(tmp_path) as path:
        (path / "inbox").mkdir()
        yield path / "inbox"


@pytest.fixture(params=[FilePoller, INotifyPoller], ids=["scan", "inotify"])
def kind(request):
    return request.param


# -- the vocabulary ----------------------------------------------------------


def test_same_arguments(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["url", "recurse"]
    assert parameters[1].default is False
    assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    assert issubclass(kind, Poller)


def test_pairs_of_url_and_word(inbox, kind):
    path = inbox / "one.csv"
    with kind(f"file://{inbox}") as poller:
        for change, word in (
            (lambda: path.write_text("new"), "created"),
            (lambda: path.write_text("changed"), "modified"),
            (path.unlink, "deleted"),
        ):
            change()
            events = poller.get_new_events()
            assert isinstance(events, list)
            assert len(events) == 1
            subject, event = events[0]
            assert isinstance(subject, Url)
            assert subject.path == str(path)
            assert subject.scheme == "file"
            assert type(event) is str
            assert event == word
            assert events == [(Url(f"file://{path}"), word)]
            assert (subject, event) in events
            assert dict(events) == {subject: word}


def test_url_may_be_an_object_a_text_or_a_path(inbox, kind):
    for url in (Url(f"file://{inbox}"), f"file://{inbox}", str(inbox), inbox):
        with kind(url, True) as poller:
            assert poller.url == Url(inbox)
            assert poller.recurse is True
            put(inbox / "sub" / "file", str(url))
            assert [event for _, event in poller.get_new_events()] in (["created"], ["modified"])


def test_other_schemes_are_not_for_pollers_of_files(kind):
    with pytest.raises(ValueError, match="watches files"):
        kind("https://example.org/inbox")


def test_only_what_happened_since_the_last_call(inbox, kind):
    put(inbox / "there before")
    with kind(inbox) as poller:
        assert poller.get_new_events() == []
        put(inbox / "new")
        assert len(poller.get_new_events()) == 1
        assert poller.get_new_events() == []
        put(inbox / "newer")
        put(inbox / "newest")
        assert [subject.path for subject, _ in poller.get_new_events()] == [
            str(inbox / "newer"),
            str(inbox / "newest"),
        ]


@pytest.mark.parametrize("recurse", [False, True])
def test_recurse_takes_in_directories_that_are_there_and_that_come(inbox, kind, recurse):
    (inbox / "existing" / "deeper").mkdir(parents=True)
    with kind(inbox, recurse=recurse) as poller:
        assert poller.recurse is recurse
        books = Books(inbox, {})
        put(inbox / "top")
        put(inbox / "existing" / "one")
        put(inbox / "existing" / "deeper" / "two")
        put(inbox / "newly" / "made" / "three")
        below = [b"existing/deeper/two", b"existing/one", b"newly/made/three"] if recurse else []
        assert books.settle(poller) == [(key, "created") for key in [*below, b"top"]]


def test_make_poller_prefers_inotify(inbox):
    with make_poller(f"file://{inbox}", recurse=True) as poller:
        assert type(poller) is INotifyPoller
        put(inbox / "one")
        assert poller.get_new_events() == [(Url(inbox / "one"), "created")]


def test_make_poller_does_without_inotify_simple(inbox):
    """In a program of its own, where the library can't be imported."""
    code = """
import logging, sys
sys.modules["inotify_simple"] = None
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from poller_core import FilePoller, make_poller
with make_poller(sys.argv[1]) as poller:
    assert type(poller) is FilePoller, poller
    open(sys.argv[1] + "/one", "w").close()
    print([event for _, event in poller.get_new_events()])
"""
    done = subprocess.run([sys.executable, "-c", code, inbox], capture_output=True, text=True, check=True)
    assert "['created']" in done.stdout
    assert "INotifyPoller can't be used" in done.stdout
    assert "pip install inotify_simple" in done.stdout


def test_names_are_where_they_are_expected():
    for name in ("Poller", "FilePoller", "INotifyPoller", "make_poller"):
        assert hasattr(poller_core, name)
    with pytest.raises(TypeError, match="abstract"):
        Poller("file:///tmp")  # type: ignore[abstract]


# -- what it gets wrong ------------------------------------------------------


def test_file_written_slowly_is_reported_when_it_is_complete(inbox):
    """There: at the first byte, and then again and again."""
    with INotifyPoller(inbox) as poller:
        told = []
        with open(inbox / "slow", "w") as file:
            for _ in range(10):
                file.write("line\n")
                file.flush()
                told += poller.get_new_events()
        assert told == []
        events = poller.get_new_events()
        assert events == [(Url(inbox / "slow"), "created")]
        assert events[0].size == 50
        assert poller.get_new_events() == []


def test_file_written_slowly_is_reported_once_quiet(inbox):
    with FilePoller(inbox, settle=0.3) as poller:
        books = Books(inbox)
        for _ in range(10):
            before = time.monotonic()
            with open(inbox / "slow", "a") as file:
                file.write("line\n")
            told = books.enter(poller.get_new_events())
            assert told == [] or time.monotonic() - before >= 0.3
        if not books.told:
            assert books.wait_for(poller, 1) == [(b"slow", "created")]
            assert books.known[b"slow"] == 50


def test_files_renamed_into_the_directory(inbox, kind, tmp_path):
    """There: a file that was moved in is not seen by inotify, as nobody creates or writes it."""
    with kind(inbox) as poller:
        put(inbox.parent / "outside", "text").rename(inbox / "inside")
        assert poller.get_new_events() == [(Url(inbox / "inside"), "created")]
        (inbox / "inside").rename(inbox / "renamed")
        assert set(poller.get_new_events()) == {
            (Url(inbox / "inside"), "deleted"),
            (Url(inbox / "renamed"), "created"),
        }
        (inbox / "renamed").rename(inbox.parent / "outside")
        assert poller.get_new_events() == [(Url(inbox / "renamed"), "deleted")]


def test_files_in_subdirectories_made_since(inbox, kind):
    """There: what comes before the watch is set, is lost."""
    with kind(inbox, recurse=True) as poller:
        for number in range(50):
            put(inbox / f"n{number}" / "in" / "file")
        assert len(poller.get_new_events()) == 50
        for number in range(50):
            put(inbox / f"n{number}" / "in" / "file", "changed")
        assert [event for _, event in poller.get_new_events()] == ["modified"] * 50


def test_directories_are_not_reported_at_every_poll(inbox, kind):
    with kind(inbox, recurse=True) as poller:
        (inbox / "sub" / "deeper").mkdir(parents=True)
        assert poller.get_new_events() == []
        put(inbox / "sub" / "file")
        assert [event for _, event in poller.get_new_events()] == ["created"]
        assert poller.get_new_events() == []
        (inbox / "sub" / "file").unlink()
        os.utime(inbox / "sub")
        assert [event for _, event in poller.get_new_events()] == ["deleted"]
        assert poller.get_new_events() == []


def test_directories_that_are_asked_for_are_reported_once(inbox, kind):
    with kind(inbox, recurse=True, directories=True) as poller:
        (inbox / "sub").mkdir()
        assert poller.get_new_events() == [(Url(inbox / "sub"), "created")]
        put(inbox / "sub" / "file")
        assert poller.get_new_events() == [(Url(inbox / "sub" / "file"), "created")]
        (inbox / "sub" / "file").unlink()
        (inbox / "sub").rmdir()
        assert len(poller.get_new_events()) == 2
        assert poller.get_new_events() == []


def test_dangling_symlinks(inbox, kind):
    """There: the first one ends the listing with an exception."""
    (inbox / "dangling").symlink_to("nowhere")
    (inbox / "loop").symlink_to("loop")
    for follow in (False, True):
        with kind(inbox, recurse=True, follow_symlinks=follow) as poller:
            put(inbox / f"file{follow}")
            (inbox / f"dangling{follow}").symlink_to("nowhere")
            assert len(poller.get_new_events()) == 2
            (inbox / f"dangling{follow}").unlink()
            assert [event for _, event in poller.get_new_events()] == ["deleted"]


def test_more_events_than_the_queue_holds(inbox):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"inotify's queue is too long to overflow here: {limit}")
    with INotifyPoller(inbox) as poller:
        for number in range(limit // 2 + 500):
            os.close(os.open(inbox / f"f{number}", os.O_WRONLY | os.O_CREAT))
        events = poller.get_new_events()
        assert len(events) == limit // 2 + 500
        assert {event for _, event in events} == {"created"}
        assert poller.status().overflows == 1
        assert poller.get_new_events() == []


def test_two_modifications_within_one_second(inbox, kind):
    """There: the time of the last change is compared in whole seconds."""
    path = put(inbox / "data", "0")
    with kind(inbox) as poller:
        start = time.monotonic()
        for number in range(1, 6):
            path.write_text(str(number))
            assert [event for _, event in poller.get_new_events()] == ["modified"]
        if time.monotonic() - start > 5:
            pytest.skip("this machine is too slow to do it within a second")


def test_modification_right_after_creation(inbox, kind):
    with kind(inbox) as poller:
        for number in range(20):
            path = put(inbox / f"f{number}", "0")
            assert [event for _, event in poller.get_new_events()] == ["created"]
            path.write_text("1")
            assert [event for _, event in poller.get_new_events()] == ["modified"]
