"""Writes the dump of a state that ``test_state_schema`` opens.

Run once for each version, as ``python -m tests.state.make_fixture``, and kept: the
dump shows that later releases read what this one wrote. It refuses to write over
the dump of a version.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from poller_core.state import Record, SnapshotChange, event_id, open_store, schema
from poller_core.state.observed import Observed
from tests.state.helpers import page, some

OUTPUT = Path(__file__).parent / "fixtures" / f"v{schema.current_version()}.sql"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.db"
        fill(path)
        connection = sqlite3.connect(path)
        with OUTPUT.open("x") as output:
            output.write("\n".join(connection.iterdump()) + "\n")
        connection.close()


def fill(path: Path) -> None:
    with open_store(path) as store:
        consumers = store.consumers
        target = store.target("5d" * 16, "file:///srv/inbox", '{"recurse":true}')
        with store.database.transaction():
            store.database.run("UPDATE poller_targets SET epoch = '00112233445566ff'")
        target = store.reload(target.id)
        consumers.create(target.id, "main", 1)

        def commit(records: list[Record], at: int, **change: object) -> None:
            generation = store.generation(target.id)
            found = SnapshotChange(detected_at_us=at * 1_000_000, records=records)
            found.identity, found.resume_key = '{"device":7}', b"x\xff"
            for name, value in change.items():
                setattr(found, name, value)
            store.commit(target.id, generation, found)

        commit([Record(1, b"one"), Record(1, b"two")], 1_600_000_000)
        commit(
            [
                Record(2, b"three \xfe", 33, 1600000000123456789, '"e-tag \N{SNOWMAN}"'),
                Record(3, b"four"),
            ],
            1_690_000_000,
            put=[page(b"", [b"a", b"b"]), page(b"m", [b"m", b"n\xfe"])],
            entries=4,
        )
        commit(some(4, "e"), 1_690_000_001)
        commit(some(1500, "k")[5:] + some(5, "k"), 1_690_000_002)
        consumers.ack(target.id, "main", 2)
        assert store.prune(target.id, 1_695_000_000, 30 * 86400, 300 * 86400) == 2

        consumers.claim(target.id, "main", "run-1", 5, lambda record: record.key != b"four")
        consumers.claim(target.id, "main", "run-2", 2)
        consumers.bury(target.id, "main", 11, 3, "exit code 1", '{"seq": 11}')
        event = store.event(target.id, "main", 12)
        print(event_id(target.epoch, 12, event.record), event.record)
        consumers.take(target.id, "main", event_id(target.epoch, 12, event.record), "run-3")
        consumers.release(target.id, "main", "run-2")
        consumers.create(
            target.id, "late", "beginning", iter([[Record(1, b"a"), Record(1, b"m", 5, 1600000000000000000)]])
        )
        store.look_done(target.id, 1700000000.5, 0.25, '{"gaps":[]}')
        store.observations.save(target.id, "boot", 1.6e9, [Observed(b"new", b"mark", 2.5, 60.0)], 1.7e9)


if __name__ == "__main__":
    main()
