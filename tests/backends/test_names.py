"""A directory that is changed while it is read may give a name twice; each must be listed once.

That can't be brought about at will, so the file system here is a fake which repeats names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from poller_core import FilePoller
from poller_core.backends import names as names_module
from poller_core.backends.filesystem import FileSystem

#: What the kernel gives in one answer has no repeats; more names than this take several.
MANY = 1000


class Stuttering(FileSystem):
    """Gives every third name of a large directory a second time, as a listing among renames may."""

    def listdir(self, fd: int) -> list[str]:
        names = os.listdir(fd)
        return names + names[::3] if len(names) > MANY else names

    @contextmanager
    def scandir(self, fd: int) -> Iterator[Iterator[Any]]:
        with os.scandir(fd) as found:
            entries = list(found)
        yield iter(entries + entries[::3] if len(entries) > MANY else entries)


@pytest.mark.parametrize("large", [False, True], ids=["listdir", "scandir"])
def test_a_name_that_comes_twice_is_listed_once(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(names_module, "LARGE", 0)
        monkeypatch.setattr(names_module, "_BATCH", 100)
        monkeypatch.setattr(names_module, "_PIECE", 7)
    with FilePoller(tmp_path, recurse=True, fs=Stuttering()) as poller:
        for number in range(1500):
            (tmp_path / f"a-file-with-a-longer-name-{number:04}").touch()
        for number in range(40):
            (tmp_path / f"folder-{number:02}").mkdir()
            (tmp_path / f"folder-{number:02}" / "inside").touch()
        events = poller.get_new_events()
        assert len(events) == len({event.key for event in events}) == 1540
        assert poller.get_new_events() == []
