"""Targets, snapshot pages and the journal, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from poller_core.errors import (
    InvalidOption,
    OffsetTooOld,
    PollerClosed,
    StateDamaged,
    UnknownEvent,
    WriteConflict,
)
from poller_core.state import Head, PageRow, Record, SnapshotChange, Store, event_id, open_store
from tests.state.helpers import add, page, records, seqs, some, target_of


def test_a_target_is_made_once(store: Store, state_url: str) -> None:
    target = target_of(store)
    assert (target.generation, target.next_seq, target.last_seq, target.floor_seq) == (0, 1, 0, 0)
    assert (target.entries, target.complete, target.looked_at) == (0, False, None)
    with open_store(state_url) as other:
        assert target_of(other) == target
        second = target_of(other, "two")
    assert second.id != target.id
    assert second.epoch != target.epoch
    assert [found.digest for found in store.targets()] == ["one", "two"]
    assert store.reload(target.id) == target


def test_commit_stores_pages_events_and_numbers(store: Store) -> None:
    target = target_of(store)
    change = SnapshotChange(
        detected_at_us=5_000_000,
        put=[page(b"", [b"a", b"b"]), page(b"m", [b"m"])],
        records=records("a", "b", "m"),
        entries=3,
        identity='{"dev":1}',
        resume_key=b"m\xff",
        complete=False,
    )
    done = store.commit(target.id, 0, change)
    assert done == (1, 1, 3)
    found = store.reload(target.id)
    assert (found.generation, found.last_seq, found.entries) == (1, 3, 3)
    assert (found.identity, found.resume_key, found.complete) == ('{"dev":1}', b"m\xff", False)
    assert store.last_seq(target.id) == 3
    events, upto = store.read(target.id, "", 0)
    assert [event.record for event in events] == change.records
    assert seqs(events) == [1, 2, 3]
    assert upto == 3
    assert {event.detected_at_us for event in events} == {5_000_000}

    # A page that is dropped and put again under the same key in one change is there.
    change = SnapshotChange(
        detected_at_us=6_000_000, drop=[b"", b"m"], put=[page(b"", [b"a", b"m"])], records=[], entries=-1
    )
    assert store.commit(target.id, 1, change) == (2, 4, 3)
    found = store.reload(target.id)
    assert (found.entries, found.identity, found.resume_key, found.complete) == (2, None, None, True)
    assert [head.first_key for head in store.heads(target.id)] == [b""]


def test_a_commit_from_an_older_generation_is_dropped_whole(store: Store, state_url: str) -> None:
    target = target_of(store)
    with open_store(state_url) as other:
        add(other, target, records("a"))
    change = SnapshotChange(detected_at_us=1, put=[page(b"", [b"z"])], records=records("z"), entries=1)
    with pytest.raises(WriteConflict):
        store.commit(target.id, 0, change)
    assert store.generation(target.id) == 1
    assert list(store.heads(target.id)) == []
    assert store.reload(target.id).entries == 0
    assert [event.record.key for event in store.read(target.id, "", 0)[0]] == [b"a"]


def test_an_error_in_a_commit_leaves_nothing(store: Store) -> None:
    target = target_of(store)

    class Broken(list[Record]):
        def __iter__(self) -> Iterator[Record]:
            yield from records("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.commit(target.id, 0, SnapshotChange(1, put=[page(b"", [b"a"])], records=Broken(), entries=1))
    assert store.reload(target.id) == target
    assert list(store.heads(target.id)) == []
    assert add(store, target, records("a")) == 1


def test_heads_begin_with_the_page_that_covers(store: Store) -> None:
    target = target_of(store)
    starts = [b"", b"c", b"m", b"m\xff", b"x"]
    store.commit(target.id, 0, SnapshotChange(1, put=[PageRow(key, b"d" + key, 2, b"b") for key in starts]))

    def found(start: bytes, stop: bytes | None = None) -> list[bytes]:
        return [head.first_key for head in store.heads(target.id, start, stop)]

    assert found(b"") == starts
    assert found(b"b") == starts
    assert found(b"c") == starts[1:]
    assert found(b"n", b"x") == [b"m\xff"]
    assert found(b"n", b"x\0") == [b"m\xff", b"x"]
    assert found(b"d", b"e") == [b"c"]
    assert found(b"zz") == [b"x"]
    assert next(store.heads(target.id)) == Head(b"", b"d", 2)


def test_heads_before_the_first_page(store: Store) -> None:
    target = target_of(store)
    store.commit(target.id, 0, SnapshotChange(1, put=[page(b"m", [b"m"])]))
    assert [head.first_key for head in store.heads(target.id, b"a")] == [b"m"]
    assert list(store.heads(target.id, b"a", b"b")) == []


def test_heads_are_read_by_windows(store: Store) -> None:
    target = target_of(store)
    keys = [b"%06d" % number for number in range(2500)]
    store.commit(target.id, 0, SnapshotChange(1, put=[PageRow(key, b"d", 1, b"b") for key in keys]))
    heads = store.heads(target.id)
    assert next(heads).first_key == keys[0]
    # Nothing stays locked or open while a caller is between two of them.
    store.commit(target.id, 1, SnapshotChange(1, drop=[keys[-1]]))
    assert [head.first_key for head in heads] == keys[1:-1]


def test_blob(store: Store, state_url: str) -> None:
    target = target_of(store)
    first, second = page(b"", [b"a"]), page(b"", [b"a", b"b"])
    store.commit(target.id, 0, SnapshotChange(1, put=[first]))
    assert store.blob(target.id, b"", first.digest) == first.blob
    with open_store(state_url) as other:
        other.commit(target.id, 1, SnapshotChange(1, put=[second]))
        with pytest.raises(WriteConflict):
            store.blob(target.id, b"", first.digest)
        other.commit(target.id, 2, SnapshotChange(1, drop=[b""]))
        with pytest.raises(WriteConflict):
            store.blob(target.id, b"", second.digest)
        other.forget(target.id)
        with pytest.raises(StateDamaged, match="forgotten"):
            store.blob(target.id, b"", second.digest)


def test_a_large_batch_is_split_into_rows(store: Store) -> None:
    target = target_of(store)
    assert add(store, target, some(2500)) == 2500
    rows = store.database.rows("SELECT first_seq, last_seq FROM poller_journal ORDER BY first_seq")
    assert rows == [(1, 1000), (1001, 2000), (2001, 2500)]
    events, upto = store.read(target.id, "", 0)
    assert [event.record for event in events] == some(2500)
    assert upto == 2500


def test_read(store: Store) -> None:
    target = target_of(store)
    add(store, target, some(10))
    add(store, target, some(10, "g"))
    events, upto = store.read(target.id, "", 3, 2)
    assert (seqs(events), upto) == ([4, 5], 5)
    events, upto = store.read(target.id, "", 0, None, lambda record: record.key.endswith(b"3"))
    assert (seqs(events), upto) == ([4, 14], 20)
    events, upto = store.read(target.id, "", 0, 1, lambda record: record.key.endswith(b"3"))
    assert (seqs(events), upto) == ([4], 4)
    assert store.read(target.id, "", 20) == ([], 20)
    with pytest.raises(InvalidOption):
        store.read(target.id, "", 0, 0)


def test_event(store: Store) -> None:
    target = target_of(store)
    add(store, target, some(10), at=77)
    store.consumers.create(target.id, "late", "beginning", iter([some(2, "x")]))
    assert store.event(target.id, "any", 4) == (4, 77_000_000, some(10)[3])
    assert store.event(target.id, "late", 12).record == some(2, "x")[1]
    for consumer, seq in [("any", 12), ("any", 0), ("late", 13), ("any", -1)]:
        with pytest.raises(UnknownEvent):
            store.event(target.id, consumer, seq)


def test_seq_at(store: Store) -> None:
    target = target_of(store)
    assert store.seq_at(target.id, 0) == 1
    for at in (100.0, 200.0, 300.5):
        add(store, target, some(5), at=at)
    assert [store.seq_at(target.id, at) for at in (0, 100, 100.000001, 300.5, 301)] == [1, 1, 6, 11, 16]


def test_look_done(store: Store) -> None:
    target = target_of(store)
    store.look_done(target.id, 123.5, 0.25, '{"gaps":[]}')
    found = store.reload(target.id)
    assert (found.looked_at, found.look_seconds, found.health) == (123.5, 0.25, '{"gaps":[]}')
    assert found.generation == 0
    store.look_done(target.id, None, 0.5, '{"gaps":["/"]}')
    found = store.reload(target.id)
    assert (found.looked_at, found.look_seconds, found.health) == (123.5, 0.25, '{"gaps":["/"]}')


def test_forget(store: Store) -> None:
    target, other = target_of(store), target_of(store, "two")
    for each in (target, other):
        store.commit(each.id, 0, SnapshotChange(1, put=[page(b"", [b"a"])], records=some(5), entries=1))
        store.consumers.create(each.id, "c", 1)
        store.consumers.claim(each.id, "c", "token", 2)
        event = store.event(each.id, "c", 5)
        store.consumers.take(each.id, "c", event_id(each.epoch, 5, event.record), "run")
        store.consumers.bury(each.id, "c", 4, 1, "bad", "{}")
        store.consumers.release(each.id, "c", "token")
    store.forget(target.id)
    store.forget(target.id)
    for name in ("targets", "pages", "journal", "consumers", "takes", "returned", "dead"):
        column = "id" if name == "targets" else "target_id"
        rows = store.database.rows(f"SELECT {column} FROM poller_{name}")
        assert {row[0] for row in rows} == {other.id}, name
    for attempt in (
        lambda: store.reload(target.id),
        lambda: store.generation(target.id),
        lambda: store.look_done(target.id, 1, 1, ""),
        lambda: store.commit(target.id, 1, SnapshotChange(1)),
        lambda: store.consumers.create(target.id, "c", "now"),
        lambda: store.prune(target.id, 0, 0, 0),
    ):
        with pytest.raises(StateDamaged, match="forgotten"):
            attempt()
    assert target_of(store).id not in (target.id, other.id)


def test_ids_never_repeat_after_a_new_beginning(store: Store) -> None:
    target = target_of(store)
    add(store, target, some(1))
    old = event_id(target.epoch, 1, store.event(target.id, "", 1).record)
    store.forget(target.id)
    target = target_of(store)
    add(store, target, some(1))
    assert event_id(target.epoch, 1, store.event(target.id, "", 1).record) != old


def test_a_damaged_row_is_never_delivered(store: Store) -> None:
    target = target_of(store)
    add(store, target, some(5))
    add(store, target, some(5))
    store.consumers.create(target.id, "c", 1)
    (row,) = store.database.rows("SELECT blob FROM poller_journal WHERE first_seq = 6")
    broken = row[0][:-1] + bytes([row[0][-1] ^ 1])
    with store.database.transaction():
        store.database.run("UPDATE poller_journal SET blob = ? WHERE first_seq = 6", (broken,))
    assert seqs(store.consumers.pending(target.id, "c", 5).events) == [1, 2, 3, 4, 5]
    for attempt in (
        lambda: store.consumers.pending(target.id, "c"),
        lambda: store.read(target.id, "", 5),
        lambda: store.event(target.id, "", 7),
    ):
        with pytest.raises(StateDamaged, match="events 6 to 10"):
            attempt()


def test_closed(store: Store) -> None:
    target = target_of(store)
    store.close()
    store.close()
    with pytest.raises(PollerClosed):
        store.generation(target.id)


def test_a_write_needs_a_writing_transaction(store: Store) -> None:
    with pytest.raises(RuntimeError):
        store.database.run("DELETE FROM poller_targets")
    with store.database.transaction(write=False), pytest.raises(RuntimeError):
        target_of(store)


def test_private_state() -> None:
    with open_store(None) as store:
        assert store.private
        assert store.path is None
        target = target_of(store)
        add(store, target, some(3000))
        assert len(store.read(target.id, "", 0)[0]) == 3000
    with open_store(None) as store:
        assert store.targets() == []


def test_threads_share_a_store(store: Store) -> None:
    target = target_of(store)
    store.consumers.create(target.id, "c", 1)
    claimed: list[int] = []

    def work(number: int) -> None:
        for step in range(10):
            with store.database.transaction():
                add(store, target, some(3))
            claimed.extend(seqs(store.consumers.claim(target.id, "c", f"{number}-{step}", 3)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(claimed) == list(range(1, 121))


def test_an_open_store_is_taken_as_it_is(store: Store) -> None:
    assert open_store(store) is store


def test_timeout_is_checked() -> None:
    with pytest.raises(InvalidOption):
        open_store(None, timeout=0)


def test_prune_of_nothing_is_fine(store: Store) -> None:
    target = target_of(store)
    assert store.prune(target.id, 1e9, 0, 0) == 0


def test_read_behind_the_floor_is_refused(store: Store) -> None:
    target = target_of(store)
    add(store, target, some(5), at=10)
    add(store, target, some(5), at=1000)
    assert store.prune(target.id, 1000, 500, 500) == 5
    assert seqs(store.read(target.id, "", 5)[0]) == [6, 7, 8, 9, 10]
    with pytest.raises(OffsetTooOld):
        store.read(target.id, "", 4)
