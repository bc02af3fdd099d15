"""A model of the promises, and random histories that are held against it.

A :class:`~tests.model.history.History` pulls a real directory about and, in between, polls, acknowledges,
fails, claims, takes, releases, rewinds, restarts, is killed while it looks, acknowledges or claims, makes
directories unreadable and steps the clocks. After every poll the
:class:`~tests.model.ledger.Ledger` judges what was found,
and the :class:`~tests.model.ledger.Reader` of each consumer what it was given.

A state is kept by a poller that scans, by one that is watching, or by both at once, which are then
two engines that write to one journal; in some histories two states are kept beside each other.

An ordinary run tries the same histories each time, so that a change is not blamed for what it did not do.
``MODEL_EXAMPLES`` gives a number of new ones per database, for long runs: ``MODEL_EXAMPLES=2000``.
Only then is a history that fails made shorter, which takes minutes; otherwise it is printed as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.history import History
from tests.model.running import make_small, run


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages, windows and steps of a few entries, so that small trees have many; and the hook."""
    make_small(
        monkeypatch,
        {
            "poller_core.listed._BACKLOG": 3,
            "poller_core.consuming._BACKLOG": 3,
            "poller_core.backends.walk._WINDOW": 3,
            "poller_core.backends.walk._HELD": 4,
            "poller_core.backends.walk._OPEN": 2,
            "poller_core.backends.walk._REOPENED": 1,
            "poller_core.state.store._WINDOW": 2,
        },
    )


#: Histories that once failed, by a defect of the model or of what it judges.
ONCE_FAILED: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "a file that only one of two engines reports, and a consumer that begins anew": (
        {"before": [b"a"], "kinds": (("watch", "scan"),), "settle": 0, "existing": "ignore"},
        [("open_file", {"spot": b"a"}), ("rewind_far", {"index": 0, "to": "beginning"})],
    ),
    "the same, and a consumer that is new": (
        {"before": [], "kinds": (("scan", "watch"),), "settle": 0, "existing": "ignore"},
        [("open_file", {"spot": b"a"}), ("another_consumer", {"index": 0, "start": "now"})],
    ),
    "a consumer that begins now, and goes back to before": (
        {"before": [], "kinds": (("scan",),), "settle": 0, "existing": "ignore"},
        [
            ("overtaken", {"index": 0, "key": b"a"}),
            ("another_consumer", {"index": 0, "start": "now"}),
            ("rewind", {"index": 2, "back": 0}),
        ],
    ),
    "a link that comes and goes, and is seen by one of two engines": (
        {"before": [b"a"], "kinds": (("scan", "watch"),), "settle": 0, "existing": "ignore"},
        [
            ("link", {"source": 0, "key": b"a-", "from_out": False}),
            ("claim", {"index": 0, "token": "t1", "limit": 1}),
            ("turn", {"spot": 1, "to_file": False}),
        ],
    ),
    "the wall clock jumps before a restart": (
        {"before": [], "kinds": (("scan",),), "settle": 30, "existing": "ignore"},
        [
            ("symlink", {"text": b"a", "key": b"a"}),
            ("time_passes", {"seconds": 1, "jump": 3600}),
            ("restart", {"gently": False}),
            ("audit", {"acknowledge": False}),
        ],
    ),
    "a file is opened, looked at, renamed": (
        {"before": [], "kinds": (("watch",),), "settle": 0, "existing": "ignore"},
        [
            ("open_and_move", {"key": b"a/b", "to": b"a-", "look": True}),
            ("audit", {"acknowledge": True}),
        ],
    ),
    "a file is closed, and opened again before anybody looks": (
        {"before": [b"a"], "kinds": (("watch",),), "settle": 0, "existing": "ignore"},
        [
            ("append", {"spot": b"a"}),
            ("open_file", {"spot": b"a"}),
            ("audit", {"acknowledge": True}),
        ],
    ),
    "a killed look after one with an event that waits to be claimed": (
        {"before": [b"a/a"], "kinds": (("scan", "watch"),), "settle": 0, "existing": "ignore"},
        [
            ("claim", {"index": 0, "token": "t1", "limit": 1}),
            ("open_file", {"spot": b"b"}),
            ("die_looking", {"index": 0, "point": "look.commit", "after": False, "times": 1}),
            ("open_and_move", {"key": b"a-", "to": b"a/b", "look": True}),
            ("die_looking", {"index": 1, "point": "look.commit", "after": False, "times": 1}),
            ("take", {"index": 1, "token": "t1", "place": 0}),
        ],
    ),
}


@pytest.mark.parametrize("name", ONCE_FAILED)
def test_histories_that_once_failed(tmp_path: Path, name: str) -> None:
    class Mine(History):
        base = tmp_path
        url = None

    history = Mine()
    begin, steps = ONCE_FAILED[name]
    try:
        history.begin(**begin)
        for step, arguments in steps:
            getattr(history, step)(**arguments)
    finally:
        history.teardown()


@pytest.mark.slow
def test_histories(tmp_path: Path) -> None:
    run(History, 40, 50, base=tmp_path, url=None)


@pytest.mark.postgres
def test_histories_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    run(History, 12, 50, base=tmp_path, url=postgres_url)
