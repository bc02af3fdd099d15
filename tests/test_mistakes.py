"""The mistakes of a first hour: the message alone has to be enough to get out of each.

:mod:`tests.test_bad_input` has what can't be understood. Here is what can be understood, and is most likely
not what was meant; what is told of it besides; and what ``docs/how-to/troubleshooting.md`` quotes.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from poller_core import FilePoller
from tests.faultfs import FaultFileSystem
from tests.races.tools import put


def test_a_directory_that_can_not_be_read_is_told_once_and_when_it_can(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fs = FaultFileSystem()
    for name in ("closed", "open"):
        put(inbox / name / "old")
    rule = fs.fail("open_dir", b"closed", errno.EACCES)
    with FilePoller(inbox, recurse=True, fs=fs) as poller:
        put(inbox / "closed" / "new")
        put(inbox / "open" / "new")
        for _ in range(3):
            poller.get_new_events()
        (told,) = caplog.messages
        assert told == (
            f"file://{inbox}: 1 part(s) can't be listed; what is in them is not reported, nor taken for deleted: "
            f"Permission denied: {inbox}/closed/"
        )
        assert caplog.records[0].levelno == logging.WARNING
        fs.rules.remove(rule)
        assert [event.key for event in poller.get_new_events()] == [b"closed/new", b"closed/old"]
        assert caplog.messages[1:] == [f"file://{inbox}: all of it can be listed again"]
