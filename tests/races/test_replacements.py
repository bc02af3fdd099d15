"""One thing in another's place: names that stay while what they mean changes.

Every test here once made some watcher of files silent or noisy: a fingerprint
that is equal by accident, a directory where a file was, an editor that saves by
renaming.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from poller_core.filters import LEFTOVERS
from tests.races.tools import Books, put

_YEAR = 365 * 86400


def _times(path: Path, like: os.stat_result) -> None:
    os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns), follow_symlinks=False)


def test_file_becomes_a_directory_and_a_file_again(inbox, watching):
    put(inbox / "thing")
    poller = watching()
    books = Books(inbox)
    for _ in range(5):
        (inbox / "thing").unlink()
        put(inbox / "thing" / "inner")
        assert books.settle(poller) == [(b"thing", "deleted"), (b"thing/inner", "created")]
        put(inbox / "thing" / "inner", "changed")
        assert books.settle(poller) == [(b"thing/inner", "modified")]
        shutil.rmtree(inbox / "thing")
        put(inbox / "thing", "a file again")
        assert books.settle(poller) == [(b"thing", "created"), (b"thing/inner", "deleted")]
    books.agree()


def test_directory_becomes_a_link_to_one_elsewhere(tmp_path, inbox, watching):
    put(inbox / "thing" / "inner")
    put(tmp_path / "elsewhere" / "inner", "secret")
    poller = watching()
    books = Books(inbox)
    shutil.rmtree(inbox / "thing")
    (inbox / "thing").symlink_to(tmp_path / "elsewhere")
    # The link itself is the entry. It is not followed, so nothing below it is.
    assert books.settle(poller) == [(b"thing", "created"), (b"thing/inner", "deleted")]
    put(tmp_path / "elsewhere" / "more")
    assert books.settle(poller) == []
    books.agree()


def test_renamed_over_with_size_and_time_preserved(inbox, watching):
    old = put(inbox / "data", "aaaa").stat()
    poller = watching()
    books = Books(inbox)
    put(inbox / ".new", "bbbb")
    assert books.settle(poller) == [(b".new", "created")]
    _times(inbox / ".new", old)
    (inbox / ".new").rename(inbox / "data")
    assert (inbox / "data").stat().st_mtime_ns == old.st_mtime_ns
    assert books.settle(poller) == [(b".new", "deleted"), (b"data", "modified")]
    books.agree()


def test_renamed_over_from_outside_with_size_and_time_preserved(tmp_path, inbox, watching):
    old = put(inbox / "data", "aaaa").stat()
    poller = watching()
    books = Books(inbox)
    new = put(tmp_path / "new", "bbbb")
    _times(new, old)
    new.rename(inbox / "data")
    assert books.settle(poller) == [(b"data", "modified")]
    assert books.settle(poller) == []


def test_written_and_the_old_time_set_back(inbox, watching):
    path = put(inbox / "data", "aaaa")
    old = path.stat()
    poller = watching()
    books = Books(inbox)
    for text in ("bbbb", "cccc"):
        path.write_text(text)
        _times(path, old)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
        assert books.settle(poller) == [(b"data", "modified")]


def test_two_files_exchanged_in_one_step(inbox, watching):
    for name in ("one", "two"):
        path = put(inbox / name, f"in {name}")
        os.utime(path, (1e9, 1e9))
    poller = watching()
    books = Books(inbox)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(-100, os.fsencode(inbox / "one"), -100, os.fsencode(inbox / "two"), 2)
    if done:
        pytest.skip(f"files can't be exchanged here: {os.strerror(ctypes.get_errno())}")
    assert (inbox / "one").read_text() == "in two"
    assert books.settle(poller) == [(b"one", "modified"), (b"two", "modified")]


def test_same_size_within_one_tick_of_the_clock(inbox, watching):
    """Each write is seen, although it comes as fast as it can after the look that saw the one before."""
    path = put(inbox / "data", "0000")
    poller = watching()
    books = Books(inbox)
    for number in range(1, 200):
        with open(path, "r+b", buffering=0) as file:
            file.write(b"%04d" % number)
        assert books.enter(poller.get_new_events()) == [(b"data", "modified")], number
    assert books.settle(poller) == []


def test_truncated_and_written_to_the_same_size_at_once(inbox, watching):
    path = put(inbox / "data", "0000")
    poller = watching()
    books = Books(inbox)
    for number in range(1, 100):
        path.write_text(f"{number:04}")
        assert books.settle(poller) == [(b"data", "modified")], number


def test_created_changed_and_deleted_in_quick_succession(inbox, watching):
    poller = watching()
    books = Books(inbox)
    for number in range(100):
        path = put(inbox / "data", "x")
        assert books.settle(poller) == [(b"data", "created")]
        path.write_text("y")
        assert books.settle(poller) == [(b"data", "modified")]
        path.unlink()
        assert books.settle(poller) == [(b"data", "deleted")], number
    # Made anew between two looks: the inode may be the same one, the file is not.
    put(inbox / "data", "x")
    books.settle(poller)
    for number in range(50):
        (inbox / "data").unlink()
        put(inbox / "data", "x")
        assert books.settle(poller) == [(b"data", "modified")], number


def test_hard_links(tmp_path, inbox, watching):
    outside = put(tmp_path / "outside", "text")
    os.link(outside, inbox / "first")
    poller = watching()
    books = Books(inbox)
    os.link(inbox / "first", inbox / "second")
    # A new name for the same content: the other name was not written to.
    assert books.settle(poller) == [(b"second", "created")]
    (inbox / "second").write_text("longer text")
    told = books.settle(poller)
    assert (b"second", "modified") in told
    # Through the other name nobody wrote, so a watch may learn of it only from the next full listing.
    assert set(told) <= {(b"first", "modified"), (b"second", "modified")}
    (inbox / "second").unlink()
    assert (b"second", "deleted") in books.settle(poller)


def test_hard_link_from_outside_is_reported_without_anybody_closing_it(tmp_path, inbox, watching):
    outside = put(tmp_path / "outside", "text")
    poller = watching()
    books = Books(inbox)
    os.link(outside, inbox / "linked")
    assert books.settle(poller) == [(b"linked", "created")]


def test_written_through_another_hard_link_is_found_by_a_full_listing(tmp_path, inbox, watching):
    outside = put(tmp_path / "outside", "text")
    os.link(outside, inbox / "linked")
    poller = watching(full_every=0)
    books = Books(inbox)
    outside.write_text("changed from outside")
    assert books.settle(poller) == [(b"linked", "modified")]


def test_arrivals_that_look_old(tmp_path, inbox, watching):
    """No watermark: files that are older than all that is there already, and files of one time."""
    put(inbox / "newest")
    poller = watching()
    books = Books(inbox)
    now = time.time()
    expected = []
    for number in range(20):
        source = put(tmp_path / f"source{number}", "text")
        os.utime(source, (now - _YEAR * (number % 3 + 1),) * 2)
        if number % 2:
            shutil.copy2(source, inbox / source.name)
        else:
            source.rename(inbox / source.name)
        expected.append((os.fsencode(source.name), "created"))
    subprocess.run(["cp", "-p", tmp_path / "source1", inbox / "copied"], check=True)
    put(inbox / "beginning of time")
    os.utime(inbox / "beginning of time", (0, 0))
    put(inbox / "before it")
    os.utime(inbox / "before it", (-1000, -1000))
    put(inbox / "in the future")
    os.utime(inbox / "in the future", (now + _YEAR,) * 2)
    expected += [
        (name, "created") for name in (b"copied", b"beginning of time", b"before it", b"in the future")
    ]
    assert sorted(books.settle(poller)) == sorted(expected)
    books.agree()
    assert books.settle(poller) == []


def test_more_files_of_the_same_time_after_a_look(inbox, watching):
    poller = watching()
    books = Books(inbox)
    for number in range(10):
        os.utime(put(inbox / f"f{number}"), (1e9, 1e9))
        assert books.settle(poller) == [(b"f%d" % number, "created")]


def test_metadata_alone_is_silent_unless_asked_for(inbox, watching):
    path = put(inbox / "data")
    poller, curious = watching(), watching(metadata=True, consumer="curious")
    books, more = Books(inbox), Books(inbox)
    path.chmod(0o600)
    assert books.settle(poller) == []
    assert more.settle(curious) == [(b"data", "modified")]
    path.write_text("written")
    assert books.settle(poller) == [(b"data", "modified")]
    assert more.settle(curious) == [(b"data", "modified")]
    path.chmod(0o640)
    path.write_text("both")
    assert books.settle(poller) == [(b"data", "modified")]


def test_links_that_lead_nowhere_round_in_circles_and_elsewhere(tmp_path, inbox, watching):
    poller = watching()
    books = Books(inbox)
    (inbox / "dangling").symlink_to("nowhere")
    (inbox / "loop").symlink_to("loop")
    (inbox / "up").symlink_to("..")
    (inbox / "elsewhere").symlink_to(put(tmp_path / "elsewhere"))
    names = (b"dangling", b"elsewhere", b"loop", b"up")
    assert books.settle(poller) == [(name, "created") for name in names]
    assert books.settle(poller) == []
    (inbox / "dangling").unlink()
    (inbox / "dangling").symlink_to("no here")  # as long as before
    assert books.settle(poller) == [(b"dangling", "modified")]
    for name in names:
        os.unlink(os.path.join(os.fsencode(inbox), name))
    assert books.settle(poller) == [(name, "deleted") for name in names]


def test_links_that_are_followed(tmp_path, inbox, watching):
    put(tmp_path / "one" / "inner")
    put(tmp_path / "two" / "inner", "other")
    poller = watching(follow_symlinks=True)
    books = Books(inbox, {})
    (inbox / "dir").symlink_to(tmp_path / "one")
    assert books.settle(poller) == [(b"dir/inner", "created")]
    put(tmp_path / "one" / "later")
    assert books.settle(poller) == [(b"dir/later", "created")]
    (inbox / "next").symlink_to(tmp_path / "two")
    (inbox / "next").rename(inbox / "dir")
    assert set(books.settle(poller)) == {(b"dir/inner", "modified"), (b"dir/later", "deleted")}
    (inbox / "circle").symlink_to(".")
    assert books.settle(poller) == []


def test_pipes_sockets_and_devices_are_never_touched(inbox, watching):
    poller = watching()
    books = Books(inbox)
    os.mkfifo(inbox / "pipe")  # to open it would block for ever
    put(inbox / "file")
    assert books.settle(poller) == [(b"file", "created")]
    (inbox / "file").unlink()
    os.mkfifo(inbox / "file")
    assert books.settle(poller) == [(b"file", "deleted")]


# -- how programs save -------------------------------------------------------


def _atomically(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("saved atomically")
    temporary.rename(path)


def _as_vim_does(path: Path) -> None:
    probe = path.with_name("4913")
    probe.touch()
    probe.unlink()
    swap = put(path.with_name(f".{path.name}.swp"))
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text("saved by vim")
    backup.unlink()
    swap.unlink()


def _keeping_the_backup(path: Path) -> None:
    shutil.copy2(path, path.with_name(path.name + "~"))
    path.write_text("saved in place")


def _as_rsync_does(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.aB3xYz")
    temporary.write_text("transferred")
    os.utime(temporary, (1e9, 1e9))
    temporary.rename(path)


def _as_gnome_does(path: Path) -> None:
    temporary = path.with_name(".goutputstream-X1Y2Z3")
    temporary.write_text("saved by an editor")
    os.link(path, path.with_name(path.name + "~"))
    temporary.rename(path)


@pytest.mark.parametrize(
    "save", [_atomically, _as_vim_does, _keeping_the_backup, _as_rsync_does, _as_gnome_does]
)
def test_saving_is_one_modification(inbox, watching, save):
    path = put(inbox / "text.csv")
    poller = watching()
    books = Books(inbox)
    for _ in range(3):
        save(path)
        assert books.settle(poller) == [(b"text.csv", "modified")]
        Path(inbox / "text.csv~").unlink(missing_ok=True)
    assert books.settle(poller) == []


@pytest.mark.skipif(not shutil.which("vim"), reason="vim is not installed")
def test_the_real_vim(inbox, watching):
    path = put(inbox / "text.csv", "old\n")
    poller = watching()
    books = Books(inbox)
    command = [
        "vim",
        "-N",
        "-u",
        "NONE",
        "-es",
        "-c",
        "set backup writebackup",
        "-c",
        "normal Onew",
        "-c",
        "wq",
    ]
    subprocess.run([*command, path], stdin=subprocess.DEVNULL, check=True, timeout=60)
    assert path.read_text().startswith("new")
    assert books.settle(poller) == [(b"text.csv", "modified")]


def _leftover(pattern: str) -> str:
    return pattern.replace("*", "data.csv")


@pytest.mark.parametrize("default_exclude", [True, False], ids=["left-out", "wanted"])
def test_leftovers_of_editors_and_transfers(inbox, watching, default_exclude):
    poller = watching(default_exclude=default_exclude)
    books = Books(inbox)
    for pattern in LEFTOVERS:
        put(inbox / (_leftover(pattern) + "inner" if pattern.endswith("/") else _leftover(pattern)))
    told = books.settle(poller)
    assert len(told) == (0 if default_exclude else len(LEFTOVERS))
    for path in inbox.iterdir():
        if path.is_file():
            path.write_text("changed")
            path.unlink()
        else:
            shutil.rmtree(path)
    told = books.settle(poller)
    assert len(told) == (0 if default_exclude else len(LEFTOVERS))


@pytest.mark.parametrize(
    "temporary", ["data.csv.part", "data.csv.crdownload", ".data.csv.aB3xYz", "data.csv~"]
)
def test_finished_transfer_is_one_creation(inbox, watching, temporary):
    poller = watching()
    books = Books(inbox)
    put(inbox / temporary, "half of it")
    assert books.settle(poller) == []
    put(inbox / temporary, "all of it")
    assert books.settle(poller) == []
    (inbox / temporary).rename(inbox / "data.csv")
    assert books.settle(poller) == [(b"data.csv", "created")]
    # And the other way round: what becomes a leftover is gone.
    (inbox / "data.csv").rename(inbox / temporary)
    assert books.settle(poller) == [(b"data.csv", "deleted")]


def test_excluded_directory_renamed_to_one_that_is_not(inbox, watching):
    poller = watching(exclude=["tmp/", "*.log"])
    books = Books(inbox)
    put(inbox / "tmp" / "in" / "file")
    put(inbox / "tmp" / "noise.log")
    assert books.settle(poller) == []
    (inbox / "tmp").rename(inbox / "ready")
    assert books.settle(poller) == [(b"ready/in/file", "created")]
    put(inbox / "ready" / "in" / "file", "changed")
    assert books.settle(poller) == [(b"ready/in/file", "modified")]
    (inbox / "ready").rename(inbox / "tmp")
    assert books.settle(poller) == [(b"ready/in/file", "deleted")]
