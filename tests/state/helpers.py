"""What the tests of the state share, and what they run in processes of their own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poller_core.state import Consumers, Numbered, PageRow, Record, SnapshotChange, Store, Target, event_id

ROOT = Path(__file__).resolve().parents[2]


def records(*names: str, kind: int = 1) -> list[Record]:
    return [Record(kind, name.encode(), 10 * number, 10**18 + number) for number, name in enumerate(names)]


def some(count: int, prefix: str = "f") -> list[Record]:
    return records(*(f"{prefix}{number:06d}" for number in range(count)))


def target_of(store: Store, name: str = "one") -> Target:
    return store.target(name, f"file:///data/{name}", "{}")


def add(store: Store, target: Target, found: list[Record], at: float = 1000.0) -> int:
    """Commit events; the newest one's number."""
    change = SnapshotChange(detected_at_us=round(at * 1e6), records=found)
    return store.commit(target.id, store.generation(target.id), change).last_seq


def seqs(events: list[Numbered]) -> list[int]:
    return [event.seq for event in events]


def id_of(store: Store, target: Target, seq: int, consumer: str = "c") -> str:
    return event_id(target.epoch, seq, store.event(target.id, consumer, seq).record)


def left(consumers: Consumers, target: Target, name: str = "c") -> list[int]:
    return seqs(consumers.pending(target.id, name).events)


def offset(consumers: Consumers, target: Target, name: str = "c") -> int:
    found = consumers.get(target.id, name)
    assert found is not None
    return found.seq


def pack(keys: list[bytes]) -> bytes:
    """A page of the tests' own kind: the blob is the content with a mark before it."""
    return b"P" + b"\n".join(keys)


def unpack(blob: bytes) -> bytes:
    if not blob.startswith(b"P"):
        raise ValueError("no page")
    return blob[1:]


def keys_of(content: bytes) -> list[bytes]:
    return content.split(b"\n") if content else []


def page(first_key: bytes, keys: list[bytes]) -> PageRow:
    blob = pack(keys)
    return PageRow(first_key, hashlib.sha256(unpack(blob)).digest(), len(keys), blob)


def beginning(found: list[Record]) -> Iterator[list[Record]]:
    yield found


def start(code: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Run Python code in a process of its own. ``arguments`` is there as ``A``, from JSON."""
    head = "import json, sys\nA = json.loads(sys.argv[1])\nfrom tests.state.helpers import *\n"
    head += "from poller_core.state import *\nfrom poller_core.errors import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, json.dumps(arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process; what it printed. Any other exit code than the expected one fails."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, f"exit code {process.returncode}\n{output}\n{errors}"
    return output
