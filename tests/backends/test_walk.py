"""The walk: order, spans, depth, width, links and special files. What fails is in ``test_walk_faults.py``."""

from __future__ import annotations

import os
import resource
import socket
import stat
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller_core.backends import names as names_module
from poller_core.backends import walk as walk_module
from poller_core.backends.filesystem import FileSystem
from poller_core.backends.walk import WalkOptions, walk
from poller_core.listing import Chunk, Gap, Row, Span, key_span, tree_span
from tests.backends.sources import ALL, make
from tests.faultfs import FaultFileSystem

# Bytes above and below "/", names that begin alike, names that are no text; the last three sort in
# another order as text than as bytes.
NAMES = [
    *(b"a", b"a-", b"a.b", b"a0", b"aa", b"b", b"-", b" ", b"0", b"\xc3\xa9", b"\n"),
    *(b"\xff", b"\xf0\x9f\x98\x80", b"\xee\x80\x80"),
]


@contextmanager
def opened(root: bytes | Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def listed(
    root: bytes | Path, span: Span = ALL, fs: FileSystem | None = None, **options: Any
) -> dict[bytes, Row]:
    """What a walk finds, which has to be without gaps and in order."""
    before = set(os.listdir("/proc/self/fd"))
    found: dict[bytes, Row] = {}
    with opened(root) as fd:
        last = b""
        for chunk in walk(fs or FileSystem(), fd, span, WalkOptions(**options)):
            assert isinstance(chunk, Chunk), chunk
            assert len(chunk.names) == len(chunk.rows) > 0
            for name, row in zip(chunk.names, chunk.rows, strict=True):
                key = chunk.prefix + name
                assert key > last
                assert span.holds(key)
                found[key] = row
                last = key
    assert set(os.listdir("/proc/self/fd")) == before
    return found


def oracle(
    root: bytes, prefix: bytes = b"", directories: bool = False, recurse: bool = True, follow: bool = False
) -> list[bytes]:
    """The keys, by a plain recursion."""
    keys = []
    for name in os.listdir(os.path.join(root, prefix)):
        path = os.path.join(root, prefix, name)
        if os.path.isdir(path) and (follow or not os.path.islink(path)):
            if directories:
                keys.append(prefix + name + b"/")
            if recurse:
                keys += oracle(root, prefix + name + b"/", directories, recurse, follow)
        elif os.path.islink(path) or os.path.isfile(path):
            keys.append(prefix + name)
    return sorted(keys)


def plant(root: bytes, tree: dict[bytes, Any]) -> None:
    for name, what in tree.items():
        path = os.path.join(root, name)
        if isinstance(what, dict):
            os.mkdir(path)
            plant(path, what)
        elif what == "link":
            os.symlink(b"nowhere", path)
        elif what == "pipe":
            os.mkfifo(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


leaves = st.sampled_from(["file", "file", "file", "link", "pipe"])
trees = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), leaves, max_size=6),
    lambda below: st.dictionaries(st.sampled_from(NAMES), leaves | below, max_size=6),
    max_leaves=30,
)
part = st.sampled_from([*NAMES, b"q", b""])
keys = st.lists(part, max_size=4).map(b"/".join)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = draw(keys)
    kind = draw(st.sampled_from(["key", "tree", "range", "open"]))
    if kind == "key":
        return key_span(start + draw(st.sampled_from([b"", b"/"])))
    if kind == "tree":
        return tree_span(start + b"/")
    if kind == "open":
        return Span(start)
    return Span(*sorted([start, draw(keys) + draw(st.sampled_from([b"", b"/", b"0"]))]))


@pytest.fixture(params=[(512, 2 << 20, 8192, 1024), (2, 0, 3, 2)], ids=["as shipped", "tiny windows"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real sizes, and ones so small that every small tree meets every boundary."""
    window, large, batch, piece = request.param
    monkeypatch.setattr(walk_module, "_WINDOW", window)
    monkeypatch.setattr(names_module, "LARGE", large)
    monkeypatch.setattr(names_module, "_BATCH", batch)
    monkeypatch.setattr(names_module, "_PIECE", piece)
    if window < 10:
        monkeypatch.setattr(walk_module, "_HELD", 1)
        monkeypatch.setattr(walk_module, "_OPEN", 2)
        monkeypatch.setattr(walk_module, "_REOPENED", 1)


@pytest.mark.usefixtures("sizes")
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=trees, span=spans(), directories=st.booleans(), recurse=st.sampled_from([True, True, False]))
def test_keys_are_those_of_a_plain_recursion_sorted(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[bytes, Any],
    span: Span,
    directories: bool,
    recurse: bool,
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("tree"))
    plant(root, tree)
    expected = oracle(root, directories=directories, recurse=recurse)
    assert list(listed(root, directories=directories, recurse=recurse)) == expected
    inside = [key for key in expected if span.holds(key)]
    assert list(listed(root, span, directories=directories, recurse=recurse)) == inside


def test_row_holds_what_lstat_says(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("twelve bytes")
    os.utime(tmp_path / "f", ns=(1, 1_600_000_000_123_456_789))
    os.link(tmp_path / "f", tmp_path / "g")
    os.symlink("f", tmp_path / "l")
    for key, row in listed(tmp_path).items():
        found = os.lstat(os.path.join(os.fsencode(tmp_path), key))
        assert row == (
            found.st_mode,
            found.st_ino,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )


@pytest.mark.parametrize("wanted", [{"size"}, {"mtime", "inode"}, {"ctime"}])
def test_what_the_fingerprint_leaves_out_is_zero(tmp_path: Path, wanted: set[str]) -> None:
    make(tmp_path, "d/f", "top")
    (tmp_path / "top").write_text("x")
    for span in (Span(), key_span(b"top")):
        row = listed(tmp_path, span, fingerprint=frozenset(wanted))[b"top"]
        found = os.lstat(tmp_path / "top")
        truth = {
            "inode": found.st_ino,
            "size": found.st_size,
            "mtime": found.st_mtime_ns,
            "ctime": found.st_ctime_ns,
        }
        for name, index in {"inode": 1, "size": 5, "mtime": 6, "ctime": 7}.items():
            assert row[index] == (truth[name] if name in wanted else 0)
        assert (row[0], row[2:5]) == (found.st_mode, (found.st_nlink, found.st_uid, found.st_gid))


def test_a_directory_is_not_modified_by_its_children(tmp_path: Path) -> None:
    make(tmp_path, "d/")
    before = listed(tmp_path, directories=True)
    make(tmp_path, "d/sub/f")
    after = listed(tmp_path, directories=True)
    assert list(after) == [b"d/", b"d/sub/", b"d/sub/f"]
    assert after[b"d/"] == before[b"d/"]
    os.chmod(tmp_path / "d", 0o700)
    assert listed(tmp_path, directories=True)[b"d/"] != before[b"d/"]
    assert listed(tmp_path, key_span(b"d/"), directories=True)[b"d/"][5:] == (0, 0, 0)


@pytest.mark.parametrize("recurse", [True, False])
def test_special_files_are_no_entries_and_never_opened(tmp_path: Path, recurse: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    make(tmp_path, "f")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        os.symlink("pipe", tmp_path / "to-pipe")
        # Opening the pipe for reading would block for ever: nobody writes to it.
        assert list(listed(tmp_path, recurse=recurse)) == [b"f", b"to-pipe"]
        assert list(listed(tmp_path, recurse=recurse, follow_symlinks=True)) == [b"f"]
        for name in (b"pipe", b"sock"):
            assert listed(tmp_path, key_span(name)) == {}


def test_left_out_directories_are_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "keep/f", "tmp/f", "keep/tmp/f", "keep/tmp-1")
    fs = FaultFileSystem()

    def enter(prefix: bytes) -> bool:
        return not prefix.endswith(b"tmp/")

    assert list(listed(tmp_path, fs=fs, enter=enter, directories=True)) == [
        b"keep/",
        b"keep/f",
        b"keep/tmp-1",
    ]
    for span in (key_span(b"tmp/f"), tree_span(b"keep/tmp/"), key_span(b"tmp/"), key_span(b"keep/tmp/f")):
        assert listed(tmp_path, span, fs=fs, enter=enter, directories=True) == {}
    assert not [path for call, path in fs.log if call == "open_dir" and path.endswith(b"tmp")]


# -- spans -------------------------------------------------------------------


def test_one_key_costs_one_stat_and_no_listing(tmp_path: Path) -> None:
    make(tmp_path, "a/b/f", "a/b/g", "top")
    fs = FaultFileSystem()
    assert list(listed(tmp_path, key_span(b"a/b/f"), fs=fs)) == [b"a/b/f"]
    assert fs.calls == {"open_dir": 2, "lstat": 1, "close": 2}
    fs.calls.clear()
    assert list(listed(tmp_path, key_span(b"top"), fs=fs)) == [b"top"]
    assert fs.calls == {"lstat": 1}


def test_a_tree_costs_nothing_outside_of_it(tmp_path: Path) -> None:
    make(tmp_path, "a/b/f", "a/other/f", "z/f")
    fs = FaultFileSystem()
    assert list(listed(tmp_path, tree_span(b"a/b/"), fs=fs)) == [b"a/b/f"]
    assert fs.calls["listdir"] + fs.calls["scandir"] == 1
    assert fs.calls["open_dir"] == 2


@pytest.mark.parametrize(
    "key", [b"", b"/", b"..", b"../x", b"a/../a/f", b"./a/f", b"a//f", b"/a/f", b"a/f\0", b"a\0/f", b"a/f/x"]
)
def test_a_key_that_no_listing_has_is_absent(tmp_path: Path, key: bytes) -> None:
    make(tmp_path, "root/a/f", "x")
    root = tmp_path / "root"
    assert listed(root, key_span(key)) == {}
    if not key.startswith((b"/", b"..")) and key:
        assert listed(root, tree_span(key + b"/")) == {}


# -- depth and width ---------------------------------------------------------


def dig(root: Path, depth: int, name: bytes, files: Iterable[bytes]) -> None:
    """A chain of directories far beyond the longest path that the system takes."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        for file in files:
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def fill_in(root: Path, depth: int, name: bytes, files: Iterable[bytes]) -> None:
    """Remove what :func:`dig` made, from the bottom up."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for step in [name] * depth + [b".."] * depth:
        above = os.open(step, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = above
        if step == b"..":
            os.rmdir(name, dir_fd=fd)
            for file in files:
                os.unlink(file, dir_fd=fd)
    os.close(fd)


@pytest.mark.parametrize("files", [[], [b"zz"], [b"a", b"zz"]], ids=["bare", "file after", "files around"])
def test_deep_chain(tmp_path: Path, files: list[bytes]) -> None:
    depth, name = 3000, b"mm"
    root = tmp_path / "deep"
    root.mkdir()
    dig(root, depth, name, files)
    try:
        expected = sorted((name + b"/") * level + file for level in range(depth) for file in files)
        fs = FaultFileSystem()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 70, hard))
        try:
            assert list(listed(root, fs=fs)) == expected
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # A directory in which nothing is left to do is closed before the last one below it is entered.
        assert fs.most_open <= (64 if files else 3)
        assert fs.calls["open_dir"] < 120 * depth  # not the square of it
        deepest = name + b"/"
        bottom = deepest * (depth - 1)
        assert list(listed(root, tree_span(bottom))) == [key for key in expected if key.startswith(bottom)]
        for key in expected[-2:]:
            assert list(listed(root, key_span(key))) == [key]
    finally:
        fill_in(root, depth, name, files)


def test_deep_tree_with_wide_levels_holds_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "_HELD", 100)
    make(tmp_path, *("d/" * level + f"z{number:02}" for level in range(12) for number in range(50)))
    fs = FaultFileSystem()
    assert list(listed(tmp_path, fs=fs)) == oracle(os.fsencode(tmp_path))
    # Some rows were dropped and read again, but only a few times each.
    assert 612 < fs.calls["lstat"] < 3 * 612


def peak(root: Path, **options: Any) -> tuple[int, int]:
    """(number of entries, most bytes that Python held at a time)."""
    count = 0
    with opened(root) as fd:
        tracemalloc.start()
        try:
            last = b""
            for chunk in walk(FileSystem(), fd, Span(), WalkOptions(**options)):
                assert isinstance(chunk, Chunk)
                assert chunk.names[0] > last
                last = chunk.names[-1]
                count += len(chunk.names)
            return count, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.slow
def test_a_large_flat_directory_takes_little_memory(tmp_path: Path) -> None:
    os.close(os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    source, links = "f", 1
    for number in range(200_000):
        name = f"g{number * 7919 % 1_000_003:07}"
        if links >= 30_000:  # file systems limit the links to one file
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            source, links = name, 1
            continue
        os.link(source, name, src_dir_fd=fd, dst_dir_fd=fd)
        links += 1
    os.close(fd)
    # In one list the names alone, as text and as bytes, are 20 MiB.
    count, most = peak(tmp_path, sized=False)
    assert count == 200_001
    assert most < 12 << 20


def test_sized_directories_are_read_in_one_go_if_they_are_small(tmp_path: Path) -> None:
    make(tmp_path, "a/f", "b/f")
    fs = FaultFileSystem()
    listed(tmp_path, fs=fs)
    assert fs.calls["listdir"] >= 2
    fs.calls.clear()
    listed(tmp_path, fs=fs, sized=False)
    assert fs.calls["listdir"] == 0


# -- links -------------------------------------------------------------------


def test_links_are_entries_by_themselves(tmp_path: Path) -> None:
    make(tmp_path, "d/f")
    os.symlink("d", tmp_path / "to-d")
    os.symlink("d/f", tmp_path / "to-f")
    os.symlink("nowhere", tmp_path / "dangling")
    found = listed(tmp_path)
    assert list(found) == [b"d/f", b"dangling", b"to-d", b"to-f"]
    assert all(stat.S_ISLNK(found[key][0]) for key in (b"dangling", b"to-d", b"to-f"))
    assert listed(tmp_path, key_span(b"to-d/f")) == {}
    assert listed(tmp_path, tree_span(b"to-d/")) == {}


def test_followed_links_are_what_they_point_at(tmp_path: Path) -> None:
    make(tmp_path, "d/f", "d-1")
    (tmp_path / "d" / "f").write_text("content")
    os.symlink("d", tmp_path / "to")
    os.symlink("d/f", tmp_path / "to-f")
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink("self", tmp_path / "self")
    found = listed(tmp_path, follow_symlinks=True)
    assert list(found) == [b"d-1", b"d/f", b"dangling", b"self", b"to-f", b"to/f"]
    assert found[b"to-f"] == found[b"to/f"] == found[b"d/f"]
    assert stat.S_ISLNK(found[b"dangling"][0])
    assert stat.S_ISLNK(found[b"self"][0])
    for key, row in found.items():
        assert listed(tmp_path, key_span(key), follow_symlinks=True) == {key: row}
    assert list(listed(tmp_path, tree_span(b"to/"), follow_symlinks=True)) == [b"to/f"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "a/b/f")
    os.symlink("..", tmp_path / "a" / "b" / "up")
    os.symlink(".", tmp_path / "here")
    os.symlink(tmp_path, tmp_path / "a" / "root")
    os.symlink("../a", tmp_path / "a" / "me")
    make(tmp_path, "c/g")
    os.symlink("../c", tmp_path / "a" / "c")  # no loop: seen twice
    expected = [b"a/b/f", b"a/c/g", b"c/g"]
    assert list(listed(tmp_path, follow_symlinks=True)) == expected
    for key in (b"a/b/up/b/f", b"here/a/b/f", b"a/root/c/g"):
        assert listed(tmp_path, key_span(key), follow_symlinks=True) == {}
    for prefix in (b"a/b/up/", b"here/", b"a/b/up/b/"):
        assert listed(tmp_path, tree_span(prefix), follow_symlinks=True) == {}
    assert list(listed(tmp_path, tree_span(b"a/c/"), follow_symlinks=True)) == [b"a/c/g"]


# -- who listens -------------------------------------------------------------


def test_each_directory_is_announced_before_it_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "a/b/f", "c/f", "f")
    seen: list[tuple[bytes, int, int]] = []

    def on_directory(prefix: bytes, fd: int, device: int) -> None:
        found = os.fstat(fd)
        seen.append((prefix, found.st_ino, device))
        # Made after the announcement: must be listed.
        os.close(os.open(b"late", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))

    with opened(tmp_path) as fd:
        keys = [
            item.prefix + name
            for item in walk(FileSystem(), fd, Span(), WalkOptions(), on_directory)
            if not isinstance(item, Gap)
            for name in item.names
        ]
    device = os.stat(tmp_path).st_dev
    assert seen == [
        (prefix, os.stat(os.path.join(os.fsencode(tmp_path), prefix)).st_ino, device)
        for prefix in (b"", b"a/", b"a/b/", b"c/")
    ]
    assert keys == [b"a/b/f", b"a/b/late", b"a/late", b"c/f", b"c/late", b"f", b"late"]


def test_an_abandoned_walk_closes_what_it_opened(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c/f", "a/b/z", "a/z", "z")
    before = set(os.listdir("/proc/self/fd"))
    with opened(tmp_path) as fd:
        found = walk(FileSystem(), fd, Span(), WalkOptions())
        first = next(found)
        assert isinstance(first, Chunk)
        assert (first.prefix, first.names) == (b"a/b/c/", [b"f"])
        found.close()  # type: ignore[attr-defined]
    assert set(os.listdir("/proc/self/fd")) == before
