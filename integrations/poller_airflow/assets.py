"""``poller_asset``: an asset that is updated when something happens at a URL.

Guarantees: the asset's watcher wakes Airflow for as long as there is something that
no run has taken; nothing secret is in the asset, its watcher or its ``extra``.

Not guaranteed: one run per asset event. Airflow merges them; the run takes all that waits, with
:class:`~poller_airflow.PollerBatchOperator`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher

from poller_core import InvalidOption, Url
from poller_core.hosts import (
    OURS,
    plain_options,
    plain_seconds,
    refuse_own_state,
    refuse_relative,
    refuse_unknown,
)
from poller_core.listed import options_for

from .secrets import refuse_secrets
from .settings import STATE
from .triggers import PollerEventTrigger

__all__ = ["poller_asset", "trigger_of"]


def poller_asset(
    name: str,
    url: str | os.PathLike[str],
    *,
    consumer: str | None = None,
    conn_id: str | None = None,
    state: str | None = None,
    poke_interval: float | timedelta = 30.0,
    remind: float | timedelta = 60.0,
    limit: int | None = 1000,
    batch_for: float | timedelta = 0.0,
    uri: str | None = None,
    group: str = "poller",
    extra: dict[str, Any] | None = None,
    **options: Any,
) -> Asset:
    """An asset with its watcher, for ``schedule=[…]``. ::

        letters = poller_asset("letters", "/data/letters")

        with DAG("load_letters", schedule=[letters]):
            files = PollerBatchOperator(task_id="files", asset=letters)

    :param name: the asset's name.
    :param url: what to watch: a URL or a path, without user and password. Not templated: an asset is the same
        for all runs.
    :param consumer: the name under which is remembered what was taken; the default is the asset's name. DAGs
        that share an asset share its files; for each to have all of them, give each an asset of its own.
    :param conn_id: a connection of the type ``poller``, for credentials or the state.
    :param state: where the state is; the default is the connection's, then ``[poller] state``.
    :param poke_interval: seconds between looks at what can't be watched.
    :param remind: seconds after which Airflow is woken again for what no run has taken.
    :param limit: how many events a run takes at most; None: all that wait.
    :param batch_for: seconds to go on collecting after the first event, unless ``limit`` is reached before.
    :param uri: the asset's URI; the default is its name.
    :param group: the asset's group.
    :param extra: more for the asset's ``extra``, which has URL and consumer.
    :param options: as of :class:`~poller_airflow.PollerSensor`.
    :raises UnknownScheme: if nobody has a poller for the URL, most likely.
    :raises InvalidUrl, InvalidOption: if there is a secret in an argument, or one is not known or can't be.
    """
    consumer = consumer or name
    trigger = PollerEventTrigger(
        url,  # type: ignore[arg-type]
        consumer,
        conn_id=conn_id,
        state=state,
        poke_interval=plain_seconds(poke_interval),
        remind=plain_seconds(remind),
        limit=limit,
        batch_for=plain_seconds(batch_for),
        **plain_options(options),
    )
    refuse_secrets(url, state, trigger.options)
    refuse_relative(url)
    location = Url(url)
    refuse_unknown(location)
    if state is not None:
        refuse_own_state(state, STATE)
    if location.scheme in OURS:
        # A watcher's errors are told in the triggerer's output only; who writes the DAG is to see this one.
        options_for(location, {"consumer": consumer, **trigger.options})
    _, kwargs = trigger.serialize()
    facts = {"url": kwargs["url"], "consumer": consumer, **(extra or {})}
    watchers = [AssetWatcher(name=name, trigger=trigger)]
    if uri is None:
        return Asset(name, group=group, extra=facts, watchers=watchers)
    return Asset(name, uri, group=group, extra=facts, watchers=watchers)


def trigger_of(asset: Any) -> PollerEventTrigger:
    """The trigger of an asset that :func:`poller_asset` made.

    :raises InvalidOption: if it has none.
    """
    for watcher in getattr(asset, "watchers", ()):
        trigger = watcher.trigger
        trigger = getattr(trigger, "trigger", trigger)  # a MessageQueueTrigger has it inside
        if isinstance(trigger, PollerEventTrigger):
            return trigger
    raise InvalidOption(
        f"asset={asset!r} is not watched by a poller; make it with poller_asset('inbox', '/data/inbox'), or "
        f"give url=… and consumer=…"
    )
