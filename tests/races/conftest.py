"""Every race is run with both pollers, with a state and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poller_core import FilePoller, INotifyPoller
from tests.races.tools import watchable


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """The usual directory, unless it is on a file system (a container's, say) that inotify is not used on."""
    with watchable(tmp_path) as path:
        yield path


@pytest.fixture(params=[FilePoller, INotifyPoller], ids=["scan", "inotify"])
def kind(request: pytest.FixtureRequest) -> type[FilePoller]:
    """Which poller."""
    return request.param


@pytest.fixture(params=[False, True], ids=["memory", "state"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the state is kept, if it is."""
    return tmp_path / "state.db" if request.param else None


@pytest.fixture
def watching(kind: type[FilePoller], inbox: Path, state: Path | None) -> Iterator[Callable[..., FilePoller]]:
    """Makes pollers of the inbox, and closes them."""
    made: list[FilePoller] = []

    def make(url: object = inbox, **options: object) -> FilePoller:
        made.append(kind(url, **{"recurse": True, "state": state, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for poller in made:
        poller.close()
