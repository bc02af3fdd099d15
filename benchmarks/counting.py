"""The system calls of a poller, counted."""

from __future__ import annotations

import os
from typing import Any

from poller_core.backends.filesystem import FileSystem

__all__ = ["CountingFileSystem"]


class CountingFileSystem(FileSystem):
    """Counts how many directories are listed, and how many names are looked at."""

    def __init__(self) -> None:
        self.listed = 0
        self.looked = 0
        # Instance attributes, as the class has plain functions in their place.
        self.listdir = self._listdir
        self.scandir = self._scandir
        self.lstat = self._lstat

    def _listdir(self, *args: Any) -> list[str]:
        self.listed += 1
        return os.listdir(*args)

    def _scandir(self, *args: Any) -> Any:
        self.listed += 1
        return os.scandir(*args)

    def _lstat(self, *args: Any, **kw: Any) -> os.stat_result:
        self.looked += 1
        return os.lstat(*args, **kw)
