"""What a sensor, trigger or operator watches, and the poller made of it.

Guarantees: what Airflow's connections and configuration say goes to the poller, and
nowhere else.

Not guaranteed: that the target is there; opening it tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseHook

from poller_core import InvalidOption, ListingPoller, PollerError, Url
from poller_core.hosts import FINAL, Log, Progress, open_listing, prepare_state, refuse_relative

from .connections import poller_options
from .secrets import refuse_secrets
from .settings import STATE, settings

__all__ = ["Watching", "as_airflow_has_it"]


@dataclass(frozen=True)
class Watching:
    """A target, and for which consumer."""

    url: str
    consumer: str
    conn_id: str | None = None
    state: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, log: Log | None = None) -> ListingPoller:
        """Make the poller; blocks.

        :param log: told of a first look that takes long.
        :raises PollerError: for whatever stands in the way.
        """
        return self.open_with({} if self.conn_id is None else _of(BaseHook.get_connection(self.conn_id)), log)

    async def connection(self) -> dict[str, Any]:
        """What the connection says, without blocking the loop."""
        return {} if self.conn_id is None else _of(await BaseHook.aget_connection(self.conn_id))

    def open_with(self, connection: Mapping[str, Any], log: Log | None = None) -> ListingPoller:
        """As :meth:`open`, with what :meth:`connection` gave."""
        refuse_secrets(self.url, self.state, self.options)
        refuse_relative(self.url)
        usual = settings()
        target = Url(self.url)
        access = dict(connection)
        of_connection = access.pop("state", None)
        state = self.state or of_connection or usual.state
        prepare_state(state, STATE)
        return open_listing(
            target,
            "a run could claim its events",
            access,
            self.options,
            consumer=self.consumer,
            state=state,
            retention=usual.retention,
            retention_unread=usual.retention_unread,
            **({} if log is None else {"progress": Progress(log, self.url)}),
        )


def _of(connection: Any) -> dict[str, Any]:
    # Airflow makes "generic" of some that it does not know.
    if connection.conn_type not in ("poller", "generic", None, ""):
        raise InvalidOption(
            f"connection {connection.conn_id!r} is of the type {connection.conn_type!r}; expected 'poller'"
        )
    return poller_options(connection)


@contextlib.contextmanager
def as_airflow_has_it() -> Iterator[None]:
    """Errors as Airflow knows them: what a retry can't mend fails the task at once."""
    try:
        yield
    except FINAL as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    except PollerError as error:
        raise AirflowException(f"{type(error).__name__}: {error}") from error
