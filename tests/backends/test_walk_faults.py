"""The walk when the system refuses, fails, or changes what is listed meanwhile: unread is never empty."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller_core.backends import walk as walk_module
from poller_core.backends.walk import WalkOptions, walk
from poller_core.errors import AccessDenied, TargetError, TargetNotFound
from poller_core.listing import Chunk, Gap, Span, key_span, tree_span
from tests.backends.sources import ALL, make
from tests.faultfs import FaultFileSystem, as_nobody


def outcome(
    root: Path, fs: FaultFileSystem | None = None, span: Span = ALL, **options: Any
) -> tuple[list[bytes], list[Gap]]:
    """(keys, gaps) of a walk, which have to be in order and apart from each other."""
    before = set(os.listdir("/proc/self/fd"))
    fs = fs or FaultFileSystem()
    keys: list[bytes] = []
    gaps: list[Gap] = []
    fd = fs.adopt(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    try:
        done = span.start
        for item in walk(fs, fd, span, WalkOptions(label=b"ROOT", **options)):
            if isinstance(item, Gap):
                assert item.span.start >= done
                assert item.span.stop is None or item.span.stop > item.span.start
                assert span.stop is None or (item.span.stop is not None and item.span.stop <= span.stop)
                gaps.append(item)
                done = item.span.stop or b"\xff" * 300
                continue
            assert isinstance(item, Chunk)
            for name in item.names:
                assert item.prefix + name >= done
                keys.append(item.prefix + name)
                done = keys[-1] + b"\0"
    finally:
        os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before
    return keys, gaps


def spans_of(gaps: list[Gap]) -> list[Span]:
    return [gap.span for gap in gaps]


TREE = ("a/f", "b-1", "b/c/g", "b/f", "b0", "z")


@pytest.mark.parametrize("call", ["open_dir", "listdir", "scandir"])
@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENAMETOOLONG, errno.ETIMEDOUT]
)
def test_a_directory_that_cant_be_listed_is_a_gap(tmp_path: Path, call: str, number: int) -> None:
    make(tmp_path, *TREE)
    fs = FaultFileSystem()
    fs.fail(call, b"b", number)
    keys, gaps = outcome(tmp_path, fs, sized=call != "scandir")
    assert keys == [b"a/f", b"b-1", b"b0", b"z"]
    assert spans_of(gaps) == [tree_span(b"b/")]
    assert gaps[0].reason == f"{os.strerror(number)}: ROOT/b/"


def test_a_listing_that_fails_halfway_is_a_gap_as_a_whole(tmp_path: Path) -> None:
    make(tmp_path, *(f"d/{number}" for number in range(50)), "e")
    fs = FaultFileSystem()
    rule = fs.fail("scandir", b"d", errno.EIO, after=30)
    assert outcome(tmp_path, fs, sized=False) == (
        [b"e"],
        [Gap(tree_span(b"d/"), "Input/output error: ROOT/d/")],
    )
    assert rule.hits == 1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR])
@pytest.mark.parametrize("call", ["open_dir", "listdir"])
def test_what_went_away_meanwhile_is_absent_not_a_gap(tmp_path: Path, call: str, number: int) -> None:
    make(tmp_path, *TREE)
    fs = FaultFileSystem()
    fs.fail(call, b"b", number)
    fs.fail("lstat", b"z", errno.ENOENT)
    assert outcome(tmp_path, fs) == ([b"a/f", b"b-1", b"b0"], [])


def test_a_name_that_cant_be_looked_at_may_be_a_file_or_a_tree(tmp_path: Path) -> None:
    make(tmp_path, *TREE)
    fs = FaultFileSystem()
    fs.fail("lstat", b"b", errno.EIO)
    keys, gaps = outcome(tmp_path, fs)
    assert keys == [b"a/f", b"b-1", b"b0", b"z"]
    assert spans_of(gaps) == [key_span(b"b"), tree_span(b"b/")]
    # Without subdirectories only the name itself is in doubt.
    assert spans_of(outcome(tmp_path, fs, recurse=False)[1]) == [key_span(b"b")]


def test_gaps_that_touch_are_one(tmp_path: Path) -> None:
    make(tmp_path, "p/f", "p0", "q")
    fs = FaultFileSystem()
    fs.fail("open_dir", b"p", errno.EIO)
    fs.fail("lstat", b"p0", errno.EIO)
    keys, gaps = outcome(tmp_path, fs)
    assert keys == [b"q"]
    # What is below p/ ends where the key p0 begins; between that and what is below p0/ there may be names.
    assert spans_of(gaps) == [Span(b"p/", b"p0\0"), tree_span(b"p0/")]
    assert gaps[0].reason == "Input/output error: ROOT/p/"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_followed_links_that_cant_be_looked_through_are_gaps(tmp_path: Path, number: int) -> None:
    make(tmp_path, "a", "z")
    os.symlink("a", tmp_path / "l")
    fs = FaultFileSystem()
    fs.fail("stat", b"l", number)
    keys, gaps = outcome(tmp_path, fs, follow_symlinks=True)
    assert keys == [b"a", b"z"]
    assert spans_of(gaps) == [key_span(b"l"), tree_span(b"l/")]
    assert spans_of(outcome(tmp_path, fs, span=key_span(b"l"), follow_symlinks=True)[1]) == [key_span(b"l")]


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_that_became_a_loop_is_dangling(tmp_path: Path, follow: bool) -> None:
    make(tmp_path, "d/f", "z")
    fs = FaultFileSystem()
    fs.fail("open_dir", b"d", errno.ELOOP)
    keys, gaps = outcome(tmp_path, fs, follow_symlinks=follow)
    assert keys == [b"z"]
    assert spans_of(gaps) == ([] if follow else [tree_span(b"d/")])


def test_an_unreadable_directory_is_an_entry_all_the_same(tmp_path: Path) -> None:
    make(tmp_path, *TREE)
    fs = FaultFileSystem()
    fs.fail("open_dir", b"b", errno.EACCES)
    keys, gaps = outcome(tmp_path, fs, directories=True)
    assert keys == [b"a/", b"a/f", b"b-1", b"b/", b"b0", b"z"]
    assert spans_of(gaps) == [Span(b"b/\0", b"b0")]


@pytest.mark.parametrize(
    "span", [key_span(b"b/f"), tree_span(b"b/"), tree_span(b"b/c/"), Span(b"b/f", b"b/z")]
)
def test_a_span_below_a_directory_that_cant_be_opened_is_a_gap(tmp_path: Path, span: Span) -> None:
    make(tmp_path, *TREE)
    fs = FaultFileSystem()
    fs.fail("open_dir", b"b", errno.EACCES)
    keys, gaps = outcome(tmp_path, fs, span)
    assert (keys, spans_of(gaps)) == ([], [span])


def test_names_that_cant_be_searched_are_one_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "_WINDOW", 4)
    make(tmp_path, *(f"d/{number}" for number in range(9)), "e")
    fs = FaultFileSystem()
    for number in range(9):
        fs.fail("lstat", b"d/%d" % number, errno.EACCES)
    keys, gaps = outcome(tmp_path, fs)
    assert keys == [b"e"]
    assert len(gaps) == 18  # the directory itself can be searched, so each name counts by itself
    fs.fail("lstat", b"d/.", errno.EACCES)
    keys, gaps = outcome(tmp_path, fs)
    assert keys == [b"e"]
    assert spans_of(gaps) == [Span(b"d/0", b"d0")]


def test_many_gaps_become_fewer_and_larger(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(f"a/{number:03}/f" for number in range(60)),
        "b/f",
        *(f"c/{number:03}" for number in range(60)),
    )
    make(tmp_path, "d/f")
    fs = FaultFileSystem()
    for number in range(0, 60, 2):
        fs.fail("open_dir", b"a/%03d" % number, errno.EACCES)
        fs.fail("lstat", b"c/%03d" % number, errno.EIO)
    truth = set(outcome(tmp_path)[0])
    exact_keys, exact = outcome(tmp_path, fs)
    assert len(exact) == 30 + 2 * 30
    keys, gaps = outcome(tmp_path, fs, most_gaps=10)
    assert len(gaps) == 12
    assert b"b/f" in keys
    assert b"d/f" in keys
    # Nothing is lost: what is not listed lies in a gap, and every exact gap lies in one of the larger ones.
    assert set(keys) <= set(exact_keys)
    for key in truth - set(keys):
        assert any(gap.span.holds(key) for gap in gaps)
    for gap in exact:
        assert any(
            larger.span.start <= gap.span.start and larger.span.holds(gap.span.start) for larger in gaps
        )


@pytest.mark.parametrize("steps", [1, 3])
def test_the_number_of_gaps_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(walk_module, "_STEP", steps)
    make(tmp_path, *(f"{number:03}/{name}/f" for number in range(50) for name in "ab"))
    fs = FaultFileSystem()
    for number in range(50):
        fs.fail("open_dir", b"%03d/b" % number, errno.EACCES)
    keys, gaps = outcome(tmp_path, fs, most_gaps=5)
    assert len(gaps) <= 5 + 2 * steps
    assert gaps[-1].span.stop is None
    listed = [b"%03d/a/f" % number for number in range(50)]
    assert keys == listed[: len(keys)]
    assert len(keys) >= 5


def test_past_the_limit_gaps_with_nothing_between_are_one(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number:02}/x/f" for number in range(40)), "z")
    fs = FaultFileSystem()
    for number in range(40):
        fs.fail("open_dir", b"%02d/x" % number, errno.EACCES)
    keys, gaps = outcome(tmp_path, fs, most_gaps=5)
    assert spans_of(gaps) == [
        *(tree_span(b"%02d/x/" % number) for number in range(4)),
        Span(b"04/x/", b"390"),
    ]
    assert keys == [b"z"]


# -- the root ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, AccessDenied),
        (errno.ENOENT, TargetNotFound),
        (errno.EIO, TargetError),
        (errno.ESTALE, TargetError),
    ],
)
def test_a_root_that_cant_be_listed_is_an_error(tmp_path: Path, number: int, kind: type[TargetError]) -> None:
    make(tmp_path, "f")
    fs = FaultFileSystem()
    fs.fail("listdir", b"", number)
    fs.fail("scandir", b"", number)
    with pytest.raises(kind, match="ROOT"):
        outcome(tmp_path, fs)


@pytest.mark.parametrize("span", [Span(), key_span(b"f"), tree_span(b"d/"), Span(b"d/", b"g")])
@pytest.mark.parametrize("many", [False, True])
def test_a_root_that_cant_be_searched_is_an_error(
    tmp_path: Path, span: Span, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if many:
        monkeypatch.setattr(walk_module, "_WINDOW", 1)
    make(tmp_path, "d/f", "f")
    fs = FaultFileSystem()
    for name in (b".", b"d", b"f"):
        fs.fail("lstat", name, errno.EACCES)
    fs.fail("open_dir", b"d", errno.EACCES)
    with pytest.raises(AccessDenied):
        outcome(tmp_path, fs, span)


def test_a_root_that_stops_being_searchable_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "d/f", "f")
    fs = FaultFileSystem()
    fs.fail("lstat", b".", errno.EACCES)
    fs.fail("open_dir", b"d", errno.EACCES)
    with pytest.raises(AccessDenied, match="ROOT"):
        outcome(tmp_path, fs)


# -- changes while it runs ---------------------------------------------------


def test_a_directory_replaced_by_a_file_or_link_is_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "a/f", "b/f", "c/f", "elsewhere/secret")
    fs = FaultFileSystem()

    def to_file(path: bytes) -> None:
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").touch()

    def to_link(path: bytes) -> None:
        shutil.rmtree(tmp_path / "b")
        os.symlink("elsewhere", tmp_path / "b")

    def to_nothing(path: bytes) -> None:
        shutil.rmtree(tmp_path / "c")

    fs.before("open_dir", b"a", to_file)
    fs.before("open_dir", b"b", to_link)
    fs.before("listdir", b"c", to_nothing)
    assert outcome(tmp_path, fs) == ([b"elsewhere/secret"], [])
    assert outcome(tmp_path, fs)[0] == [b"a", b"b", b"elsewhere/secret"]


def _chain(root: Path, depth: int) -> None:
    for level in range(depth):
        make(root, "d/" * level + "a", "d/" * level + "z")


@pytest.mark.parametrize("what", ["moved out", "replaced", "unreadable"])
def test_a_directory_that_moved_while_it_was_closed_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(walk_module, "_OPEN", 3)
    monkeypatch.setattr(walk_module, "_WINDOW", 1)  # so that the way up has names to look at
    root = tmp_path / "root"
    _chain(root, 12)
    fs = FaultFileSystem()
    deepest = b"/".join([b"d"] * 11)

    def change(path: bytes) -> None:
        at = root / "d/d/d"
        if what == "unreadable":
            fs.fail("open_dir", b"d/d/d", errno.EACCES)
            return
        at.rename(tmp_path / "away")
        if what == "replaced":
            make(at, "a", "d/q", "z")

    fs.before("open_dir", deepest, change)
    keys, gaps = outcome(root, fs)
    # Those that are still open are listed to their end, although they are elsewhere now.
    assert keys[:12] == [b"d/" * level + b"a" for level in range(12)]
    assert len(gaps) == 1
    assert gaps[0].span.stop == b"d/d/d0"
    assert gaps[0].span.start.startswith(b"d/d/d/")
    assert gaps[0].span.holds(b"d/d/d/z")
    assert keys[-3:] == [b"d/d/z", b"d/z", b"z"]
    lost = {b"d/" * level + b"z" for level in range(12)} - set(keys)
    assert lost
    assert all(gaps[0].span.holds(key) for key in lost)


# -- as somebody else --------------------------------------------------------


def test_without_permission(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "closed/f", "list-only/f", "list-only/g", "open/f", "search-only/f", "z")
    for path in (tmp_path, *tmp_path.parents[:2], root, root / "open"):
        os.chmod(path, 0o755)
    modes = {"closed": 0o000, "list-only": 0o444, "search-only": 0o111}
    for name, mode in modes.items():
        os.chmod(root / name, mode)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer: Any = as_nobody(lambda: outcome_of(fd))
    finally:
        os.close(fd)
        for name in modes:
            os.chmod(root / name, 0o755)
    keys, spans, single = answer
    assert keys == [b"open/f", b"z"]
    assert spans == [tree_span(b"closed/"), tree_span(b"list-only/"), tree_span(b"search-only/")]
    # A directory that can't be opened for reading is not passed through, either.
    assert single == [key_span(b"search-only/f")]


def outcome_of(fd: int) -> tuple[list[bytes], list[Span], list[Span]]:
    fs = FaultFileSystem()
    items = list(walk(fs, fd, Span(), WalkOptions()))
    single = list(walk(fs, fd, key_span(b"search-only/f"), WalkOptions()))
    return (
        [item.prefix + name for item in items if isinstance(item, Chunk) for name in item.names],
        [item.span for item in items if isinstance(item, Gap)],
        [item.span for item in single if isinstance(item, Gap)],
    )


# -- anything at any time ----------------------------------------------------

FAILURES = [errno.EIO, errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ESTALE]
CALLS = ["open_dir", "listdir", "scandir", "lstat", "stat", "fstat"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(FAILURES)), max_size=4, unique_by=lambda fault: fault[0]
    ),
    most_gaps=st.sampled_from([1, 1000]),
    follow=st.booleans(),
)
def test_whatever_fails_nothing_that_is_there_counts_as_absent(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[tuple[int, int]],
    most_gaps: int,
    follow: bool,
) -> None:
    root = tmp_path_factory.mktemp("any")
    make(root, "a/b/c/f", "a/b/c/g", "a/b/f", "a/d/f", "a/z", "b-1", "b/f", "b/g/h", "b0", "z")
    truth = set(outcome(root, follow_symlinks=follow)[0])
    fs = FaultFileSystem()
    fail = dict(faults)
    proven: set[bytes] = set()

    def sometimes(call: str) -> Callable[[bytes], None]:
        def action(path: bytes) -> None:
            number = fail.get(sum(fs.calls[name] for name in CALLS) - 1)
            if number is not None:
                if number == errno.ENOENT:
                    proven.add(path)
                raise OSError(number, os.strerror(number))

        return action

    for call in CALLS:
        fs.before(call, None, sometimes(call), times=None)
    try:
        keys, gaps = outcome(root, fs, follow_symlinks=follow, most_gaps=most_gaps)
    except TargetError:
        return  # the root: nothing is concluded
    for key in truth - set(keys):
        told_absent = any(key == path or key.startswith(path + b"/") for path in proven)
        assert told_absent or any(gap.span.holds(key) for gap in gaps), (key, gaps)
    assert set(keys) <= truth
