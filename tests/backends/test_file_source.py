"""The source for directories and single files: second looks, and what rows mean."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from poller_core.backends.file import FileSource
from poller_core.listing import Change, Chunk, Gap, tree_span
from tests.backends.sources import ALL, keys, make, row_of
from tests.faultfs import FaultFileSystem

# -- the second look ---------------------------------------------------------


def test_only_what_is_proven_gone_is_absent(tmp_path: Path) -> None:
    make(tmp_path, "f", "d/f", "d/e/f", "was-directory")
    os.mkfifo(tmp_path / "pipe")
    os.symlink("d", tmp_path / "to-d")
    os.symlink("nowhere", tmp_path / "dangling")
    source = FileSource(str(tmp_path), recurse=True)
    source.begin(None)
    there = [b"f", b"d/f", b"d/e/f", b"to-d", b"dangling", b"d/", b"d/e/"]
    gone = [
        b"g",
        b"d/g",
        b"d/e/g",
        b"x/y/z",
        b"was-directory/f",
        b"was-directory/",
        b"d",  # a directory has taken the name of a file
        b"pipe",
        b"to-d/f",  # links are not followed
        b"g/",
        b"d/..",
        b"d//f",
        b"a\0b",
    ]
    assert source.absent(there + gone) == set(gone)
    assert source.absent([]) == set()
    source.close()


def test_absent_with_followed_links(tmp_path: Path) -> None:
    make(tmp_path, "d/f", "other/g")
    os.symlink("d", tmp_path / "to-d")
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink("..", tmp_path / "d" / "up")
    source = FileSource(str(tmp_path), recurse=True, follow_symlinks=True)
    source.begin(None)
    assert source.absent([b"to-d/f", b"dangling", b"to-d", b"to-d/g", b"d/up/d/f", b"d/f"]) == {
        b"to-d",  # it is a directory
        b"to-d/g",
        b"d/up/d/f",  # a loop is never entered
    }
    assert source.absent([b"d/up/x", b"d/up/other/g", b"other/g"]) == {b"d/up/x", b"d/up/other/g"}
    source.close()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ELOOP])
def test_what_cant_be_looked_at_is_not_absent(tmp_path: Path, number: int) -> None:
    make(tmp_path, "keep")
    fs = FaultFileSystem()
    source = FileSource(str(tmp_path), recurse=True, fs=fs)
    source.begin(None)
    fs.fail("open_dir", b"d", number)
    fs.fail("lstat", b"f", number)
    assert source.absent([b"d/x/y", b"d/y", b"f", b"g"]) == {b"g"}
    source.close()


def test_a_second_look_shares_what_paths_have_in_common(tmp_path: Path) -> None:
    make(tmp_path, *(f"a/b/{name}/f" for name in "cde"))
    fs = FaultFileSystem()
    source = FileSource(str(tmp_path), recurse=True, fs=fs)
    source.begin(None)
    fs.calls.clear()
    assert source.absent([b"a/b/%c/%d" % (name, n) for n in range(100) for name in b"cde"]) == {
        b"a/b/%c/%d" % (name, n) for n in range(100) for name in b"cde"
    }
    assert fs.calls["open_dir"] == 5
    assert fs.calls["lstat"] == 300
    source.close()


def test_absent_far_down(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 60)
    make(tmp_path, f"{deep}/f", f"{deep[:-2]}/x/g")
    source = FileSource(str(tmp_path), recurse=True)
    source.begin(None)
    name = deep.encode()
    asked = [name + b"/f", name + b"/g", name[:-2] + b"/x/g", name[:-2] + b"/x/h", b"d/d/g"]
    assert source.absent(asked) == {asked[1], asked[3], asked[4]}
    source.close()


# -- what rows mean ----------------------------------------------------------


def test_what_a_change_means(tmp_path: Path) -> None:
    make(tmp_path, "f")
    path = tmp_path / "f"
    source = FileSource(str(tmp_path))
    old = row_of(source, b"f")

    def change() -> Change:
        nonlocal old
        was, old = old, row_of(source, b"f")
        assert was != old
        return source.differs(was, old)

    path.write_text("more")
    assert change() is Change.content
    os.chmod(path, 0o600)
    assert change() is Change.metadata
    os.link(path, tmp_path / "g")
    assert change() is Change.metadata
    if os.getuid() == 0:
        os.chown(path, 1234, 1234)
        assert change() is Change.metadata
    found = os.stat(path)
    path.write_text("less")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert old[5:7] == row_of(source, b"f")[5:7]
    assert change() is Change.content
    os.replace(tmp_path / "g", tmp_path / "f2")
    os.utime(path)
    assert change() is Change.content
    path.unlink()
    os.symlink("f2", path)
    assert change() is Change.content


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"mode": 0o100600}, Change.metadata),
        ({"mode": 0o120644}, Change.content),
        ({"ino": 9}, Change.content),
        ({"nlink": 2}, Change.metadata),
        ({"uid": 5, "ctime": 9}, Change.metadata),
        ({"gid": 5}, Change.metadata),
        ({"size": 9}, Change.content),
        ({"mtime": 9, "mode": 0o100600}, Change.content),
        ({"ctime": 9}, Change.content),
    ],
)
def test_which_fields_mean_what(tmp_path: Path, changed: dict[str, int], expected: Change) -> None:
    row = {
        "mode": 0o100644,
        "ino": 1,
        "nlink": 1,
        "uid": 0,
        "gid": 0,
        "size": 3,
        "mtime": 4,
        "ctime": 5,
    }
    source = FileSource(str(tmp_path))
    assert source.differs(tuple(row.values()), tuple((row | changed).values())) is expected


def test_facts(tmp_path: Path) -> None:
    make(tmp_path, "f")
    (tmp_path / "f").write_text("12345")
    os.utime(tmp_path / "f", ns=(0, -5_000_000_000))
    source = FileSource(str(tmp_path), directories=True)
    row = row_of(source, b"f")
    assert source.facts(row)[:2] == (5, -5_000_000_000)
    assert source.changed_ns(row) == os.stat(tmp_path / "f").st_ctime_ns
    assert source.changed_ns((*row[:7], -1)) == 0
    sizes_only = FileSource(str(tmp_path), fingerprint=["size"])
    row = row_of(sizes_only, b"f")
    assert sizes_only.facts(row)[:2] == (5, None)
    assert sizes_only.changed_ns(row) is None
    (tmp_path / "d").mkdir()
    row = row_of(source, b"d/")
    assert source.facts(row)[:2] == (None, None)
    assert source.changed_ns(row) is None
    assert source.subject(b"d/").path == str(tmp_path / "d")


# -- the system calls --------------------------------------------------------


def test_gaps_pass_through(tmp_path: Path) -> None:
    make(tmp_path, "d/f", "f")
    fs = FaultFileSystem()
    fs.fail("open_dir", b"d", errno.EACCES)
    source = FileSource(str(tmp_path), recurse=True, fs=fs)
    source.begin(None)
    gap, chunk = source.scan(ALL)
    assert gap == Gap(tree_span(b"d/"), f"Permission denied: {tmp_path}/d/")
    assert isinstance(chunk, Chunk)
    source.close()


def test_coarse_timestamps_reach_the_rows(tmp_path: Path) -> None:
    make(tmp_path, "f")
    os.utime(tmp_path / "f", ns=(0, 1_500_000_003_000_000_007))
    fs = FaultFileSystem()
    fs.granularity_ns = 2_000_000_000
    assert row_of(FileSource(str(tmp_path), fs=fs), b"f")[6] == 1_500_000_002_000_000_000


def test_a_stalled_listing_waits_and_then_goes_on(tmp_path: Path) -> None:
    make(tmp_path, "d/f", "f")
    fs = FaultFileSystem()
    stall = fs.stall("open_dir", b"d")
    source = FileSource(str(tmp_path), recurse=True, fs=fs)
    source.begin(None)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(keys(source)))
    thread.start()
    assert stall.reached.wait(60)
    make(tmp_path, "d/late")
    stall.go_on.set()
    thread.join(60)
    assert found == [b"d/f", b"d/late", b"f"]
    source.close()
