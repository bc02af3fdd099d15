"""What is known of file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poller_core.backends.mounts import (
    UNKNOWN,
    Mount,
    delivers_inotify,
    granularity_ns,
    is_remote,
    mount_of,
    same_mount,
    size_tells_entries,
)

TABLE = r"""21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
31 21 0:45 / /mnt/with\040space rw shared:7 master:3 - nfs4 host:/ex\134port rw,vers=4.2
32 21 254:0 /srv/data /bind rw - ext4 /dev/vda rw
33 21 0:46 / /tmp rw - tmpfs tmpfs rw
"""


def proc(path: Path, fdinfo: str, table: str = TABLE) -> str:
    (path / "fdinfo").mkdir()
    (path / "fdinfo" / "7").write_text(fdinfo)
    (path / "mountinfo").write_text(table)
    return str(path)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (21, Mount("ext4", "/dev/vda", "/")),
        (31, Mount("nfs4", "host:/ex\\port", "/")),
        (32, Mount("ext4", "/dev/vda", "/srv/data")),
        (33, Mount("tmpfs", "tmpfs", "/")),
        (3, UNKNOWN),  # a beginning of other numbers
        (99, UNKNOWN),
    ],
)
def test_the_mount_table_is_read(tmp_path: Path, number: int, expected: Mount) -> None:
    assert mount_of(7, proc(tmp_path, f"pos:\t0\nflags:\t0100000\nmnt_id:\t{number}\nino:\t2\n")) == expected


@pytest.mark.parametrize(
    ("fdinfo", "table"),
    [("pos:\t0\n", TABLE), ("mnt_id:\n", TABLE), ("mnt_id:\t21\n", ""), ("mnt_id:\t21\n", "21 no dash\n")],
)
def test_what_cant_be_understood_is_unknown(tmp_path: Path, fdinfo: str, table: str) -> None:
    assert mount_of(7, proc(tmp_path, fdinfo, table)) == UNKNOWN


def test_without_proc_it_is_unknown(tmp_path: Path) -> None:
    assert mount_of(7, str(tmp_path / "nowhere")) == UNKNOWN


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only Linux has a mount table there")
def test_this_machine_is_understood() -> None:
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert mount_of(fd).fstype == "proc"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("fstype", "inotify", "remote", "milliseconds"),
    [
        ("ext4", True, False, 10),
        ("xfs", True, False, 10),
        ("btrfs", True, False, 10),
        ("tmpfs", True, False, 10),
        ("ext3", True, False, 1100),
        ("vfat", True, False, 2100),
        ("nfs", False, True, 2000),
        ("nfs4", False, True, 2000),
        ("cifs", False, True, 2000),
        ("9p", False, True, 2000),
        ("virtiofs", False, True, 2000),
        ("fuse.sshfs", False, True, 2000),
        ("fuseblk", False, True, 2000),
        ("overlay", False, False, 10),
        ("unknown", False, False, 2000),
        ("made-up-tomorrow", False, False, 2000),
        ("", False, False, 2000),
    ],
)
def test_what_is_expected_of_a_type(fstype: str, inotify: bool, remote: bool, milliseconds: int) -> None:
    assert delivers_inotify(fstype) is inotify
    assert is_remote(fstype) is remote
    assert granularity_ns(fstype, "6.12.30-amd64") == milliseconds * 1_000_000


@pytest.mark.parametrize(
    ("release", "milliseconds"),
    [
        ("6.13.0", 0),
        ("6.18.44-cloud", 0),
        ("7.0-rc1", 0),
        ("6.9.1", 10),
        ("5.15.0", 10),
        ("", 10),
        ("odd", 10),
    ],
)
def test_timestamps_of_newer_kernels_tell_changes_apart(release: str, milliseconds: int) -> None:
    assert granularity_ns("ext4", release) == milliseconds * 1_000_000
    assert granularity_ns("f2fs", release) == 10_000_000
    assert granularity_ns("nfs4", release) == 2_000_000_000


@pytest.mark.parametrize("fstype", ["zfs", "overlay", "nfs4", "fuse.x", "unknown", "vfat"])
def test_only_where_it_is_known_the_size_of_a_directory_counts(fstype: str) -> None:
    assert size_tells_entries("ext4")
    assert not size_tells_entries(fstype)


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        (("ext4", "/dev/sda1", "/"), ("ext4", "/dev/sda1", "/"), True),
        (("nfs4", "host:/export", "/"), ("nfs4", "host:/export", "/"), True),
        (("nfs4", "host:/export", "/"), ("nfs4", "host:/other", "/"), False),
        (("ext4", "/dev/sda1", "/"), ("xfs", "/dev/sda1", "/"), False),
        (("ext4", "/dev/sda1", "/"), ("ext4", "/dev/sda1", "/bound"), False),
        (("tmpfs", "tmpfs", "/"), ("tmpfs", "tmpfs", "/"), False),
        (("unknown", "", ""), ("unknown", "", ""), False),
    ],
)
def test_same_mount(was: tuple[str, str, str], now: tuple[str, str, str], same: bool) -> None:
    assert same_mount(Mount(*was), Mount(*now)) is same
