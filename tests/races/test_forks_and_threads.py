"""One target and many who ask: forks, processes and threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading

import pytest

from poller_core import (
    FilePoller,
    PollerError,
)
from tests.faultfs import FaultFileSystem
from tests.races.tools import Books, land, put, until


def _in_child(function) -> object:
    """What a function returns in a forked child, or the error that it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                answer = function()
            except BaseException as error:
                answer = error
            os.write(writer, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)


def test_fork_in_the_middle(inbox, kind, tmp_path):
    with kind(inbox, recurse=True, state=tmp_path / "state.db") as poller:
        books = Books(inbox)
        put(inbox / "before")
        assert books.enter(poller.get_new_events()) == [(b"before", "created")]
        poller.acknowledge()
        put(inbox / "for the child")

        def child() -> object:
            told = [(event.key, event.event) for event in poller.get_new_events()]
            poller.acknowledge()
            put(inbox / "from the child")
            told += [(event.key, event.event) for event in poller.get_new_events()]
            poller.close()
            return told

        assert _in_child(child) == [(b"for the child", "created"), (b"from the child", "created")]
        # They are one consumer, and the child acknowledged. The parent's own watch still works.
        assert poller.get_new_events() == []
        put(inbox / "for the parent")
        assert [event.key for event in poller.get_new_events()] == [b"for the parent"]
        put(inbox / "for the parent", "changed")
        assert [event.event for event in poller.get_new_events()] == ["modified"]


def test_fork_without_a_state_is_refused_in_the_child(inbox, kind):
    with kind(inbox) as poller:
        error = _in_child(poller.get_new_events)
        assert isinstance(error, PollerError)
        assert "state=" in str(error)
        put(inbox / "one")
        assert len(poller.get_new_events()) == 1


def test_new_poller_in_a_forked_child(inbox, kind, tmp_path):
    """The way of multiprocessing's workers: the same target again, in the child."""
    state = tmp_path / "state.db"
    with kind(inbox, state=state) as poller:

        def child() -> object:
            with kind(inbox, state=state, consumer="child") as mine:
                put(inbox / "one")
                return [event.key for event in mine.get_new_events()]

        assert _in_child(child) == [b"one"]
        assert [event.key for event in poller.get_new_events()] == [b"one"]


def _spawned(kind, inbox, state, queue) -> None:
    with kind(inbox, state=state, consumer="spawned") as poller:
        queue.put("ready")
        told: list[bytes] = []
        while len(told) < 20:
            told += [event.key for event in poller.get_new_events()]
        queue.put(told)


def test_two_processes_on_one_target(inbox, kind, tmp_path):
    state = tmp_path / "state.db"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_spawned, args=(kind, inbox, state, queue))
    process.start()
    try:
        assert queue.get(timeout=60) == "ready"
        with kind(inbox, state=state) as poller:
            books = Books(inbox)
            for number in range(20):
                land(inbox / f"f{number:02}")
                books.enter(poller.get_new_events())
            theirs = queue.get(timeout=60)
            books.settle(poller)
            assert poller.status().last_seq == 20
    finally:
        process.join(60)
        process.kill()
        queue.close()
        queue.join_thread()
    assert theirs == [key for key, _ in books.told]
    assert sorted(theirs) == [b"f%02d" % number for number in range(20)]


def test_two_threads_ask_at_once(inbox, watching):
    """Each event goes to one of them, and none is lost; what both get together is in order for each."""
    poller = watching()
    told: list[list] = [[], []]
    stop = threading.Event()
    errors = []

    def ask(mine: list) -> None:
        try:
            while not stop.is_set():
                mine += poller.get_new_events()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in told]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            put(inbox / str(number % 7) / f"f{number}")
        until(lambda: errors or len({event.key for event in told[0] + told[1]}) == 200, "all files are told")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    seqs = [event.seq for mine in told for event in mine]
    assert len(seqs) == len(set(seqs))
    created = [event.key for mine in told for event in mine if event.event == "created"]
    assert len(created) == len(set(created)) == 200
    for mine in told:
        assert [event.seq for event in mine] == sorted(event.seq for event in mine)


def test_threads_with_pollers_of_their_own(inbox, kind, tmp_path):
    """Ten consumers on one target, each in its thread: everybody gets everything, once and in order."""
    state = tmp_path / "state.db"
    names = [f"consumer{number}" for number in range(10)]
    ready = threading.Barrier(11)
    told: dict[str, list] = {name: [] for name in names}
    errors = []

    def consume(name: str) -> None:
        try:
            with kind(inbox, recurse=True, state=state, consumer=name) as poller:
                ready.wait(60)
                while len(told[name]) < 100:
                    told[name] += [event.key for event in poller.get_new_events()]
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=consume, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    ready.wait(60)
    for number in range(100):
        land(inbox / f"{number % 3}" / f"f{number}")
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert all(keys == told[names[0]] for keys in told.values())
    assert len(set(told[names[0]])) == 100


def test_closed_in_the_middle_of_a_look(inbox, kind, tmp_path):
    put(inbox / "d" / "one")
    fs = FaultFileSystem()
    poller = kind(inbox, recurse=True, fs=fs, state=tmp_path / "state.db", full_every=0)
    put(inbox / "d" / "two")
    stall = fs.stall("*", b"d")
    result: list[object] = []

    def ask() -> None:
        try:
            result.append([event.key for event in poller.get_new_events()])
        except PollerError as error:
            result.append(error)

    asking = threading.Thread(target=ask)
    closing = threading.Thread(target=poller.close)
    asking.start()
    assert stall.reached.wait(30)
    closing.start()
    stall.go_on.set()
    asking.join(30)
    closing.join(30)
    assert result == [[b"d/two"]]
    with pytest.raises(PollerError, match="closed"):
        poller.get_new_events()


def test_nothing_is_left_open(inbox, kind, tmp_path):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    put(inbox / "d" / "one")
    for stated in (None, tmp_path / "state.db"):
        kind(inbox, recurse=True, state=stated).close()
        before = descriptors()
        for number in range(5):
            with kind(inbox, recurse=True, state=stated) as poller:
                put(inbox / "d" / "one", str(number))
                poller.get_new_events()
        shutil.rmtree(inbox)
        with pytest.raises(PollerError):
            kind(inbox, recurse=True, state=stated)
        put(inbox / "d" / "one")
        assert descriptors() == before
    assert not any(thread.name.startswith("poller") for thread in threading.enumerate())
    assert isinstance(poller, FilePoller)
