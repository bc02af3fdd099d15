"""SQLite files: making them, and everything that can be wrong with one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from poller_core.errors import (
    InvalidOption,
    StateDamaged,
    StateError,
    StateFull,
    StateLocked,
    StateReadOnly,
    StateUnreadable,
)
from poller_core.state import PageRow, SnapshotChange, open_store
from tests.races.tools import open_place, unprivileged
from tests.state.helpers import add, finish, seqs, some, start, target_of


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def state_with_events(path: Path, count: int = 10) -> None:
    with open_store(path) as store:
        target = target_of(store)
        add(store, target, some(count))


# -- making one ------------------------------------------------------------------------


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with open_store(tmp_path / "deep" / "down" / "state.db") as store:
            target_of(store)
            assert store.path is not None
            names = sorted(os.listdir(store.path.parent))
            assert names == ["state.db", "state.db-shm", "state.db-wal"]
            assert {mode_of(store.path.parent / name) for name in names} == {0o600}
            assert mode_of(tmp_path / "deep") == mode_of(tmp_path / "deep" / "down") == 0o700
    finally:
        os.umask(old)
    assert os.listdir(tmp_path / "deep" / "down") == ["state.db"]


def test_odd_names(tmp_path: Path) -> None:
    for name in ("a b%20?#.db", os.fsdecode(b"\xff\xfe.db"), "-x", "ü\n.db"):
        path = tmp_path / "sub" / name
        state_with_events(path)
        with open_store(path) as store:
            assert store.path == path
            assert store.last_seq(target_of(store).id) == 10


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///state.db") as store:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        add(store, target_of(store), some(1))
    assert os.listdir(tmp_path / "other") == []


def test_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    state_with_events(tmp_path / "state.db")
    assert os.listdir(tmp_path) == ["state.db"]
    with open_store(tmp_path / "state.db") as store:
        assert store.last_seq(target_of(store).id) == 10


def test_leftovers_of_a_kill_are_cleared_away_when_old(tmp_path: Path) -> None:
    old, new, other = (tmp_path / f".{name}.new" for name in ("state.db.1", "state.db.2", "else.db.1"))
    for path in (old, new, other):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    state_with_events(tmp_path / "state.db")
    assert sorted(os.listdir(tmp_path)) == [".else.db.1.new", ".state.db.2.new", "state.db"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_while_it_is_made(tmp_path: Path, point: str) -> None:
    path = tmp_path / "state.db"
    environment = {**os.environ, "POLLER_CRASH_AT": f"state.create.{point}"}
    finish(start("open_store(A[0])", str(path), env=environment), 137)
    assert path.exists() is (point == "after")
    state_with_events(path)


def test_processes_that_make_it_at_once_use_the_same(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    code = "input()\nwith open_store(A[0]) as s:\n    print(target_of(s).id, s.path.stat().st_ino)"
    running = [start(code, str(path)) for _ in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert len({finish(process) for process in running}) == 1
    assert os.listdir(tmp_path) == ["state.db"]


# -- what is no state ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"x" * 511,
        b"garbage " * 1000,
        b"SQLite format 3\0",
        b"SQLite format 3\0" + bytes(8000),
        bytes(4096),
    ],
)
def test_a_file_that_is_no_state_is_never_taken_for_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StateDamaged) as caught:
            open_store(path)
        assert str(path) in str(caught.value)
        assert "restore" in str(caught.value).lower()
        assert path.read_bytes() == content


def test_a_state_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state_with_events(path, 20_000)
    whole = path.read_bytes()
    for size in (1, 100, 512, 4096, 4097, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(StateDamaged):
            open_store(path)


def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(StateDamaged, match="poller_meta"):
        open_store(path)


def test_a_state_that_is_not_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(StateUnreadable, match="no state file"):
        open_store(tmp_path / "state.db", create=False)
    assert os.listdir(tmp_path) == []


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StateUnreadable):
        open_store(tmp_path)


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnreadable, match="Not a directory"):
        open_store(tmp_path / "file" / "state.db")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("name", ["x" * 300, "x" * 253, "x" * 240, "x/" * 3000 + "state.db"])
def test_a_name_that_is_too_long(tmp_path: Path, create: bool, name: str) -> None:
    with pytest.raises(StateUnreadable) as caught:
        open_store(tmp_path / name, create=create)
    if create or len(name) > 255:
        assert "File name too long" in str(caught.value)
        assert "at most 200 bytes" in str(caught.value)
    assert os.listdir(tmp_path) == []
    with open_store(tmp_path / ("x" * 200)) as store:
        add(store, target_of(store), some(1))


def test_links_that_go_round(tmp_path: Path) -> None:
    (tmp_path / "state.db").symlink_to("state.db")
    with pytest.raises(StateUnreadable, match=r"can't be reached: .*symbolic links.* state="):
        open_store(tmp_path / "state.db")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"state: .*encoding; expected a path"):
        open_store(f"{tmp_path}/\ud800.db")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_may_not_be_entered(create: bool, there: bool) -> None:
    """What is in there is not known, so nothing is said to be missing, and nothing is made."""
    with open_place() as place:
        closed = place / "closed"
        closed.mkdir()
        if there:
            state_with_events(closed / "state.db")
        closed.chmod(0o700 if os.geteuid() == 0 else 0)
        for name in ("state.db", "deep/state.db"):
            with pytest.raises(StateUnreadable) as caught:
                unprivileged(partial(open_store, closed / name, create=create))
            said = str(caught.value)
            assert f"the state file {closed / name} can't be reached: Permission denied" in said
            assert f"{closed} may not be entered by this user: change its permissions" in said
        closed.chmod(0o700)
        assert os.listdir(closed) == (["state.db"] if there else [])


def test_a_log_without_its_file(tmp_path: Path) -> None:
    code = "import os\ns = open_store(A[0])\nadd(s, target_of(s), some(10))\nos.kill(os.getpid(), 9)"
    path = tmp_path / "state.db"
    finish(start(code, str(path)), -9)
    path.rename(tmp_path / "away")
    with pytest.raises(StateUnreadable, match=r"state\.db-wal"):
        open_store(path)
    (tmp_path / "away").rename(path)
    with open_store(path) as store:
        assert store.last_seq(target_of(store).id) == 10


def test_a_file_that_goes_away_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with open_store(path) as store:
        target = target_of(store)
        path.rename(tmp_path / "away")
        with pytest.raises(StateUnreadable, match="no state file"):
            add(store, target, some(1))
        (tmp_path / "away").rename(path)
        assert add(store, target, some(1)) == 1


def test_a_file_that_is_replaced_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state_with_events(path)
    shutil.copy(path, tmp_path / "backup")
    with open_store(path) as store:
        target = target_of(store)
        (tmp_path / "backup").rename(path)
        with pytest.raises(StateUnreadable, match="replaced"):
            add(store, target, some(1))
        assert store.last_seq(target.id) == 10


# -- what can't be written --------------------------------------------------------------------


def test_a_locked_state(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with open_store(path) as first, open_store(path, timeout=0.05) as second:
        target = target_of(first)
        with first.database.transaction():
            with pytest.raises(StateLocked, match=r"0\.05 s"):
                add(second, target, some(1))
            assert second.generation(target.id) == 0
        assert add(second, target, some(1)) == 1


AS_NOBODY = """
import os
os.setgid(65534)
os.setuid(65534)
try:
    with open_store(A[0]) as s:
        print(len(s.targets()))
        add(s, target_of(s), some(1))
except StateReadOnly as error:
    print("StateReadOnly", error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("what", ["file", "directory", "new"])
def test_a_state_that_others_may_not_write(what: str) -> None:
    # Not in tmp_path, which other users can't even enter.
    directory = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        path = directory / "state.db"
        if what != "new":
            state_with_events(path)
            path.chmod(0o644 if what == "file" else 0o666)
        directory.chmod(0o777 if what == "file" else 0o755)
        output = finish(start(AS_NOBODY, str(path)))
        assert "StateReadOnly" in output
        assert str(path) in output
        if what != "new":
            directory.chmod(0o700)
            with open_store(path) as store:
                assert store.last_seq(target_of(store).id) == 10
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_state_that_is_read_only(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state_with_events(path)
    path.chmod(0o400)
    with open_store(path) as store, pytest.raises(StateReadOnly):
        add(store, target_of(store), some(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr!r}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    path = small_disk / "state.db"
    with open_store(path) as store:
        target = target_of(store)
        store.consumers.create(target.id, "c", 1)
        assert add(store, target, some(10)) == 10
        filler = small_disk / "filler"
        big = SnapshotChange(
            1,
            put=[PageRow(b"%04d" % number, b"d", 1, os.urandom(5000)) for number in range(300)],
            records=some(5),
        )
        for room in (0, 4096, 40_000):
            _fill(filler, room)
            with pytest.raises(StateFull):
                store.commit(target.id, 1, big)
            assert store.generation(target.id) == 1
            assert list(store.heads(target.id)) == []
            assert seqs(store.consumers.pending(target.id, "c").events) == list(range(1, 11))
            filler.unlink()
        assert add(store, target, some(5)) == 15
    with open_store(path) as store:
        assert store.last_seq(target.id) == 15


def test_no_room_for_a_new_state(small_disk: Path) -> None:
    filler = small_disk / "filler"
    for room in (0, 4096, 16_384):
        _fill(filler, room)
        with pytest.raises(StateFull):
            open_store(small_disk / "state.db")
        assert os.listdir(small_disk) == ["filler"]
        filler.unlink()
    open_store(small_disk / "state.db").close()


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    path = small_disk / "state.db"
    state_with_events(path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in (path, small_disk / "new.db"):
        with pytest.raises(StateReadOnly):
            open_store(name)


def test_an_open_state_whose_disk_becomes_read_only(small_disk: Path) -> None:
    with open_store(small_disk / "state.db") as store:
        target = target_of(store)
        add(store, target, some(3))
        done = subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True)
        if done.returncode == 0:
            with pytest.raises(StateError):
                add(store, target, some(3))
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert add(store, target, some(3)) == 6


def _fill(filler: Path, room: int) -> None:
    """Use up the disk but for some bytes."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    size = filler.stat().st_size
    assert os.statvfs(filler.parent).f_bavail == 0
    os.truncate(filler, max(0, size - room))
