"""The source for directories and single files: the root, second looks, and what rows mean."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from poller_core.backends.file import FileSource
from poller_core.backends.filesystem import FileSystem
from poller_core.backends.mounts import UNKNOWN
from poller_core.errors import (
    AccessDenied,
    InvalidOption,
    StateUnreadable,
    TargetError,
    TargetMoved,
    TargetNotFound,
)
from poller_core.listing import Change, Chunk, Gap, Row, Span, key_span, tree_span
from tests.faultfs import FaultFileSystem, as_nobody

ALL = Span()


def make(root: Path, *paths: str) -> None:
    for path in paths:
        full = root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.touch()


def keys(source: FileSource, span: Span = ALL) -> list[bytes]:
    found = []
    for item in source.scan(span):
        assert isinstance(item, Chunk)
        found += [item.prefix + name for name in item.names]
    return found


def look(source: FileSource, known: str | None = None) -> tuple[str, list[bytes]]:
    before = set(os.listdir("/proc/self/fd"))
    identity = source.begin(known)
    try:
        found = keys(source)
        source.verify()
    finally:
        source.close()
    assert set(os.listdir("/proc/self/fd")) == before
    return identity, found


def row_of(source: FileSource, key: bytes) -> Row:
    source.begin(None)
    (chunk,) = source.scan(key_span(key))
    assert isinstance(chunk, Chunk)
    source.close()
    return chunk.rows[0]


# -- the root ----------------------------------------------------------------


def test_a_directory(tmp_path: Path) -> None:
    make(tmp_path, "f", "d/g")
    identity, found = look(FileSource(str(tmp_path)))
    assert found == [b"f"]
    about = json.loads(identity)
    assert about["kind"] == "directory"
    assert about["dev"] == os.stat(tmp_path).st_dev
    assert look(FileSource(os.fsencode(tmp_path), recurse=True), identity) == (identity, [b"d/g", b"f"])


def test_a_relative_path_starts_from_where_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "here/f")
    monkeypatch.chdir(tmp_path)
    source = FileSource("here")
    monkeypatch.chdir("/")
    assert look(source)[1] == [b"f"]
    assert source.subject(b"f") == (tmp_path / "here" / "f").as_uri()


def test_the_path_itself_is_followed(tmp_path: Path) -> None:
    make(tmp_path, "real/f")
    os.symlink("real", tmp_path / "link")
    source = FileSource(str(tmp_path / "link"))
    assert look(source)[1] == [b"f"]
    assert source.subject(b"f").path == str(tmp_path / "link" / "f")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = b"\xff\xfe\n%?#"
    os.close(os.open(os.path.join(os.fsencode(tmp_path), name), os.O_CREAT | os.O_WRONLY))
    source = FileSource(str(tmp_path))
    assert look(source)[1] == [name]
    assert os.fsencode(source.subject(name)) == os.path.join(os.fsencode(tmp_path), name)


def test_a_missing_directory_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path / "a" / "b"))
    with pytest.raises(TargetNotFound) as caught:
        source.begin(None)
    assert f"{tmp_path}/a/b is not there" in str(caught.value)
    assert f" {tmp_path} is" in str(caught.value)
    identity = FileSource(str(tmp_path)).begin(None)
    with pytest.raises(TargetNotFound):
        source.begin(identity)


def test_a_file_where_a_directory_was_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "d/f")
    identity, _ = look(FileSource(str(tmp_path / "d")))
    shutil.rmtree(tmp_path / "d")
    make(tmp_path, "d")
    with pytest.raises(TargetNotFound, match="not a directory any more"):
        FileSource(str(tmp_path / "d")).begin(identity)
    with pytest.raises(TargetNotFound, match="is not a directory"):
        FileSource(str(tmp_path / "d" / "x")).begin(None)


def test_a_pipe_is_no_target(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetError, match="pipe"):
        FileSource(str(tmp_path / "pipe")).begin(None)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_directory_without_permission_is_an_error(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "root"
    make(root, "f")
    for path in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(path, 0o755)
    os.chmod(root, mode)

    def attempt() -> str:
        try:
            return repr(look(FileSource(str(root))))
        except AccessDenied as error:
            return f"denied: {error}"

    try:
        answer = as_nobody(attempt)
    finally:
        os.chmod(root, 0o755)
    assert answer.startswith("denied: ")
    assert str(root) in answer


@pytest.mark.parametrize("fingerprint", [(), ("size", "atime"), ("",)])
def test_a_fingerprint_of_something_else_is_refused(tmp_path: Path, fingerprint: tuple[str, ...]) -> None:
    with pytest.raises(InvalidOption, match="ctime, inode, mtime, size"):
        FileSource(str(tmp_path), fingerprint=fingerprint)


@pytest.mark.parametrize("known", ["", "{}", "[]", "null", '{"kind": "bucket"}', "not json"])
def test_an_identity_that_cant_be_read_is_never_taken_for_a_first_look(tmp_path: Path, known: str) -> None:
    with pytest.raises(StateUnreadable):
        FileSource(str(tmp_path)).begin(known)


# -- the same file system ----------------------------------------------------


def known_as(target: FileSource, /, **changes: Any) -> str:
    """What the target would have said of itself, had some of it been different."""
    about = json.loads(target.begin(None))
    target.close()
    about.update(changes)
    return json.dumps({name: value for name, value in about.items() if value is not None})


OTHER = os.makedev(8, 77)


@pytest.fixture
def on_xfs(monkeypatch: pytest.MonkeyPatch) -> None:
    from poller_core.backends import file
    from poller_core.backends.mounts import Mount

    monkeypatch.setattr(file, "mount_of", lambda fd: Mount("xfs", "/dev/sdz1", "/"))


@pytest.mark.usefixtures("on_xfs")
@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"dev": OTHER}, True),  # the device got another number, the name is the same
        ({"dev": OTHER, "source": "/dev/sdy1"}, False),
        ({"dev": OTHER, "fstype": "ext4"}, False),
        ({"dev": OTHER, "root": "/sub"}, False),
        ({"dev": OTHER, "source": "tmpfs", "fstype": "tmpfs"}, False),
        ({"dev": OTHER, "fstype": None, "source": None, "root": None}, False),
    ],
)
def test_another_file_system_is_an_error(tmp_path: Path, changes: dict[str, Any], same: bool) -> None:
    make(tmp_path, "f")
    source = FileSource(str(tmp_path))
    known = known_as(source, **changes)
    if same:
        assert look(source, known)[1] == [b"f"]
        return
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetMoved, match="--accept-root") as caught:
        source.begin(known)
    assert "xfs from /dev/sdz1" in str(caught.value)
    assert set(os.listdir("/proc/self/fd")) == before


def test_where_nothing_is_known_of_mounts_the_device_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poller_core.backends import file

    monkeypatch.setattr(file, "mount_of", lambda fd: UNKNOWN)
    source = FileSource(str(tmp_path))
    look(source, known_as(source))
    with pytest.raises(TargetMoved):
        source.begin(known_as(source, dev=OTHER))


@pytest.mark.parametrize(("major", "same"), [(8, True), (0, False)])
def test_a_borrowed_device_number_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, major: int, same: bool
) -> None:
    # Mounts without a device take the first number that is free: the next one may get the same.
    class Numbered(FileSystem):
        def fstat(self, fd: int) -> os.stat_result:
            found = list(os.fstat(fd))
            found[2] = os.makedev(major, 45)
            return os.stat_result(found)

    source = FileSource(str(tmp_path), fs=Numbered())
    known = known_as(source, fstype="cifs", fsid=None)
    if same:
        source.begin(known)
        source.close()
    else:
        with pytest.raises(TargetMoved):
            source.begin(known)


def test_the_id_of_the_file_system_decides_where_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poller_core.backends import file
    from poller_core.backends.mounts import Mount

    monkeypatch.setattr(file, "mount_of", lambda fd: Mount("ext4", "/dev/sdz1", "/"))
    source = FileSource(str(tmp_path))
    if not json.loads(known_as(source))["fsid"]:
        pytest.skip("the file system of the temporary directory has no id")
    # The disk is the same, although it has another name and number now; and the other way round.
    source.begin(known_as(source, dev=OTHER, source="/dev/sdy1"))
    source.close()
    with pytest.raises(TargetMoved):
        source.begin(known_as(source, dev=OTHER, fsid=1))


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a second file system")
def test_a_root_that_leads_to_another_file_system_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "real/f")
    link = tmp_path / "link"
    os.symlink("real", link)
    identity, _ = look(FileSource(str(link)))
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("the temporary directory is on the same file system")
    link.unlink()
    os.symlink("/dev/shm", link)
    with pytest.raises(TargetMoved):
        FileSource(str(link)).begin(identity)


# -- replaced roots ----------------------------------------------------------


def test_another_directory_of_the_same_file_system_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "v1/f", "v2/g")
    link = tmp_path / "current"
    os.symlink("v1", link)
    source = FileSource(str(link))
    identity, found = look(source)
    assert found == [b"f"]
    assert not source.root_changed
    assert source.root_id == (os.stat(tmp_path / "v1").st_dev, os.stat(tmp_path / "v1").st_ino)
    os.symlink("v2", tmp_path / "new")
    os.replace(tmp_path / "new", link)
    assert look(source, identity) == (identity, [b"g"])
    assert source.root_changed
    assert source.root_id is not None
    assert source.root_id[1] == os.stat(tmp_path / "v2").st_ino
    look(source, identity)
    assert not source.root_changed


@pytest.mark.parametrize("then", ["gone", "another"])
def test_a_root_that_is_replaced_during_the_look_is_an_error(tmp_path: Path, then: str) -> None:
    root = tmp_path / "root"
    make(root, "f")
    source = FileSource(str(root))
    source.begin(None)
    root.rename(tmp_path / "away")
    if then == "another":
        root.mkdir()
    assert keys(source) == [b"f"]
    with pytest.raises(TargetNotFound if then == "gone" else TargetError):
        source.verify()
    source.close()


def test_a_look_that_was_broken_off_does_not_leak(tmp_path: Path) -> None:
    make(tmp_path, "a/f", "b/f")
    before = set(os.listdir("/proc/self/fd"))
    source = FileSource(str(tmp_path), recurse=True)
    for _ in range(3):
        source.begin(None)
        scan = source.scan(ALL)
        next(scan)
        del scan
    source.close()
    source.close()
    assert set(os.listdir("/proc/self/fd")) == before


# -- a single file -----------------------------------------------------------


def test_a_single_file(tmp_path: Path) -> None:
    make(tmp_path, "one.csv", "other")
    source = FileSource(str(tmp_path / "one.csv"), recurse=True, directories=True)
    identity, found = look(source)
    assert (json.loads(identity)["kind"], found) == ("file", [b"one.csv"])
    assert source.is_file
    assert source.subject(b"one.csv").path == str(tmp_path / "one.csv")
    (tmp_path / "one.csv").unlink()
    # A file that is gone is nothing to list; a directory without which nothing is known is an error.
    assert look(FileSource(str(tmp_path / "one.csv")), identity) == (identity, [])
    source.begin(identity)
    assert source.absent([b"one.csv"]) == {b"one.csv"}
    source.close()
    (tmp_path / "one.csv").mkdir()
    assert look(source, identity) == (identity, [])
    shutil.rmtree(tmp_path)
    with pytest.raises(TargetNotFound):
        source.begin(identity)


def test_a_single_file_behind_a_link_is_what_it_points_at(tmp_path: Path) -> None:
    make(tmp_path, "real")
    (tmp_path / "real").write_text("four")
    os.symlink("real", tmp_path / "link")
    source = FileSource(str(tmp_path / "link"))
    assert source.facts(row_of(source, b"link")).size == 4


def test_a_single_file_that_is_not_there_at_first_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound):
        FileSource(str(tmp_path / "one.csv")).begin(None)


def test_who_watches_a_single_file_watches_its_directory(tmp_path: Path) -> None:
    make(tmp_path, "one", "two")
    source = FileSource(str(tmp_path / "one"))
    seen: list[tuple[bytes, int]] = []
    source.on_directory = lambda prefix, fd, device: seen.append((prefix, os.fstat(fd).st_ino))
    look(source)
    assert seen == [(b"", os.stat(tmp_path).st_ino)]


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
