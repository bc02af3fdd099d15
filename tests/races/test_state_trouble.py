"""What goes wrong with the state: no room, no permission, and a place inside of what is watched."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from poller_core import (
    FilePoller,
    PollerError,
    StateFull,
    StateReadOnly,
)
from tests.races.tools import Books, on_disk, open_place, put, tmpfs, unprivileged


def _fill(directory: Path) -> Path:
    """Use up all the room there."""
    filler = directory / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return filler


def _go_on_until_it_fails(poller: FilePoller, inbox: Path, books: Books) -> None:
    for number in range(3000):
        put(inbox / "more" / (f"{number} " * 10))
        if number % 100 == 0:
            books.enter(poller.get_new_events())


@pytest.mark.parametrize("start", ["open", "new"])
def test_full_disk_loses_nothing(tmp_path, inbox, kind, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk, "size=3m"):
        options = {"recurse": True, "state": disk / "state.db"}
        poller = kind(inbox, **options)
        try:
            books = Books(inbox)
            for number in range(2000):
                put(inbox / f"{number % 10}" / f"a long name that takes some room {number * 7919}")
            filler = _fill(disk)
            for _ in range(3):
                with pytest.raises(StateFull, match="no room to write"):
                    poller.get_new_events()
            if start == "new":
                poller.close()
                with kind(inbox, **options) as poller, pytest.raises(StateFull):
                    poller.get_new_events()
            put(inbox / "0" / "while it was full")
            filler.unlink()
            if start == "new":
                poller = kind(inbox, **options)
            books.settle(poller)
            books.agree()
            assert books.times("created") == 2001
            filler = _fill(disk)
            with pytest.raises(StateFull):
                _go_on_until_it_fails(poller, inbox, books)
            with contextlib.suppress(StateFull):
                poller.close()  # what was given out last may not be acknowledged: then it comes again
            filler.unlink()
        finally:
            poller.close()
        with kind(inbox, **options) as poller:
            known = {event.key for event in poller.get_new_events()}
            assert known | set(books.known) == set(on_disk(inbox))


@pytest.mark.parametrize("start", ["file", "new"])
def test_full_disk_at_the_start(tmp_path, inbox, kind, start):
    """No half of a state is left behind that would be taken for a whole one later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    put(inbox / "old")
    with tmpfs(disk, "size=1m"):
        filler = _fill(disk)
        if start == "file":
            filler.write_bytes(b"")
            os.truncate(filler, 0)
            _fill(disk)
        with pytest.raises(StateFull):
            kind(inbox, state=disk / "state.db")
        assert [name for name in os.listdir(disk) if name != "filler"] == []
        filler.unlink()
        with kind(inbox, state=disk / "state.db") as poller:
            put(inbox / "new")
            assert [tuple(event)[1] for event in poller.get_new_events()] == ["created"]


def test_state_that_became_read_only(tmp_path, inbox, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    with tmpfs(disk):
        with kind(inbox, recurse=True, state=disk / "state.db") as poller:
            books = Books(inbox)
        put(inbox / "one")
        os.system(f"mount -o remount,ro '{disk}'")
        with pytest.raises(StateReadOnly, match="read-only"):
            kind(inbox, recurse=True, state=disk / "state.db").get_new_events()
        os.system(f"mount -o remount,rw '{disk}'")
        with kind(inbox, recurse=True, state=disk / "state.db") as poller:
            assert books.settle(poller) == [(b"one", "created")]


@pytest.mark.parametrize("mode", ["file", "directory", "both"])
def test_state_that_this_user_may_not_write(kind, mode):
    with open_place() as place:

        def scenario() -> object:
            inbox, home = place / "inbox", place / "home"
            inbox.mkdir()
            home.mkdir()
            state = home / "state.db"
            kind(inbox, state=state).close()
            put(inbox / "one")
            if mode != "directory":
                state.chmod(0o400)
            if mode != "file":
                home.chmod(0o500)
            poller = None
            try:
                poller = kind(inbox, state=state)
                poller.get_new_events()
            except PollerError as error:
                said = type(error).__name__, str(error)
            else:
                return "no error", ""
            finally:
                home.chmod(0o700)
                state.chmod(0o600)
            # If it came so far as to be made, it need not be made anew.
            with poller or kind(inbox, state=state) as poller:
                return said, [tuple(event)[1] for event in poller.get_new_events()]

        said, told = unprivileged(scenario)
    assert said[0] == "StateReadOnly"
    assert "give another place as state=" in said[1]
    assert told == ["created"]


@pytest.mark.parametrize("place", ["state.db", ".poller/state.db", "sub/state"])
def test_state_inside_of_what_is_watched(inbox, kind, place):
    options = {"recurse": True, "state": inbox / place, "existing": "report"}
    with kind(inbox, **options) as poller:
        assert poller.get_new_events() == []
        for number in range(5):
            put(inbox / f"f{number}")
            assert [tuple(event)[1] for event in poller.get_new_events()] == ["created"]
            assert poller.get_new_events() == []
    with kind(inbox, **options) as poller:
        assert poller.get_new_events() == []
        assert poller.get_new_events() == []
    with kind(inbox, **{**options, "consumer": "other"}) as poller:
        assert {event.key for event in poller.get_new_events()} == {b"f%d" % number for number in range(5)}


async def test_state_inside_does_not_keep_batches_busy(inbox, kind):
    """A watch sees the poller's own writes; if each started a look that writes, it would never end."""
    import asyncio

    with kind(inbox, recurse=True, state=inbox / "state.db") as poller:
        batches = poller.batches(interval=0.2)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.5)
        before = poller._engine.store.generation(poller._engine.target_id)
        looks = [0]
        real = poller._engine._look

        def counted(*args, **kw):
            looks[0] += 1
            return real(*args, **kw)

        poller._engine._look = counted
        await asyncio.sleep(1.5)
        assert looks[0] <= 20
        assert poller._engine.store.generation(poller._engine.target_id) == before
        put(inbox / "one")
        batch = await asyncio.wait_for(waiting, 20)
        assert [event.key for event in batch] == [b"one"]
        await batch.ack()
        await batches.aclose()
