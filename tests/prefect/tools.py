"""What the tests of the Prefect adapter share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.services.prefect_host import PrefectHost

__all__ = ["using"]


@contextlib.contextmanager
def using(host: PrefectHost) -> Iterator[None]:
    """Have Prefect, in this process, use this server: flows that are called, clients, events, blocks.

    What Prefect sends in the background has been sent when this is left. Not to be entered or left from
    a coroutine.
    """
    from prefect.context import refresh_global_settings_context

    def become(variables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]
        os.environ.update(variables)
        # Where all threads look that nobody gave settings; Prefect's own do that. It is built anew from
        # the environment by Prefect itself too, so that must say the same.
        refresh_global_settings_context()

    before = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
    become({name: value for name, value in host.env.items() if name.startswith("PREFECT_")})
    try:
        yield
    finally:
        sent()
        become(before)


def sent() -> None:
    """Wait until the logs and events of this process are with the server, or are lost."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=30, at_exit=False)
