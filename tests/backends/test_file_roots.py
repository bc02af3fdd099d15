"""The root of a source: what it may be, the file system that it is on, and one that is replaced."""

from __future__ import annotations

import json
import os
import shutil
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
from tests.backends.sources import ALL, keys, look, make, row_of
from tests.faultfs import as_nobody

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
