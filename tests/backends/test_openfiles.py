"""open_writers() against the real /proc: this process, others, and some that may not be looked into."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from poller_core.backends.openfiles import open_writers

pytestmark = pytest.mark.skipif(not Path("/proc/self/fdinfo").is_dir(), reason="needs Linux's /proc")


def identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.mark.parametrize(
    ("flags", "written"),
    [
        (os.O_RDONLY, False),
        (os.O_PATH, False),
        (os.O_WRONLY, True),
        (os.O_RDWR, True),
        (os.O_WRONLY | os.O_APPEND, True),
    ],
)
def test_only_what_is_open_for_writing_is_named(tmp_path, flags, written):
    path = tmp_path / "f"
    path.touch()
    fd = os.open(path, flags)
    try:
        assert (identity(path) in open_writers().writers) is written
    finally:
        os.close(fd)
    assert identity(path) not in open_writers().writers


def test_what_is_no_regular_file_is_not_named(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    directory = os.open(tmp_path, os.O_RDONLY)
    ours, theirs = socket.socketpair()
    try:
        writers = open_writers().writers
        assert identity(tmp_path / "fifo") not in writers
        assert identity(tmp_path) not in writers
        assert identity(Path("/dev/null")) not in writers
    finally:
        os.close(fifo)
        os.close(directory)
        ours.close()
        theirs.close()


def test_only_the_inodes_that_are_asked_for(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    with one.open("w"), other.open("w"):
        found = open_writers({one.stat().st_ino}).writers
        assert identity(one) in found
        assert {inode for _, inode in found} == {one.stat().st_ino}
        assert open_writers(frozenset()).writers == frozenset()


def test_a_hard_link_or_another_name_makes_no_difference(tmp_path):
    with (tmp_path / "f").open("w"):
        (tmp_path / "f").rename(tmp_path / "g")
        os.link(tmp_path / "g", tmp_path / "link")
        assert identity(tmp_path / "link") in open_writers().writers


def test_the_writer_is_another_process(tmp_path):
    path = tmp_path / "f"
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; f = open(sys.argv[1], 'w'); print(flush=True); sys.stdin.read()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        assert identity(path) in open_writers().writers
        writer.stdin.close()
        writer.wait()
    assert identity(path) not in open_writers().writers


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_processes_of_others_make_it_incomplete(tmp_path):
    path = tmp_path / "f"
    with path.open("w") as file:
        wanted = identity(path)
        assert open_writers().writers >= {wanted}
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(file.fileno())  # only the parent's is left
                os.setgid(65534)
                os.setuid(65534)
                found = open_writers()
                code = 0 if not found.complete and wanted not in found.writers else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_first_process_left_out_makes_it_incomplete(tmp_path):
    (tmp_path / "77/fd").mkdir(parents=True)
    assert open_writers(proc=os.fspath(tmp_path)) == (frozenset(), False)
    (tmp_path / "1/fd").mkdir(parents=True)
    assert open_writers(proc=os.fspath(tmp_path)) == (frozenset(), True)


def test_no_proc_is_an_answer_too(tmp_path):
    assert open_writers(proc=os.fspath(tmp_path / "missing")) == (frozenset(), False)


def test_a_kernel_that_does_not_tell_inodes(tmp_path):
    """Before Linux 5.14 there is no such line: a made-up /proc, whose links lead to a real file."""
    target = tmp_path / "f"
    target.touch()
    for directory in ("1/fd", "1/fdinfo"):
        (tmp_path / directory).mkdir(parents=True)
    os.symlink(target, tmp_path / "1/fd/3")
    (tmp_path / "1/fdinfo/3").write_text("pos:\t0\nflags:\t0100001\nmnt_id:\t29\n")
    found = target.stat().st_ino
    assert open_writers({found}, proc=os.fspath(tmp_path)).writers == {identity(target)}
    assert open_writers({found + 1}, proc=os.fspath(tmp_path)).writers == frozenset()
