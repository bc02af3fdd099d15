"""``poll_flow``: the flow that polls a target, and has runs made or Prefect told.

Guarantees: those of :mod:`poller_prefect.polling`; a secret in a parameter is refused
before Prefect stores it, where the flow is called, served or deployed, and by the schema
of its parameters where a deployment or run is made through the API.

Not guaranteed: that a poll that was killed is started again; a schedule does that.
"""

# Without "from __future__ import annotations": a flow that is served travels to its process as an object, and
# its annotations can't come along as names.

import asyncio
from typing import Annotated, Any, Literal

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import Field, WithJsonSchema

from poller_core import PollerError
from poller_core.hosts import plain_options

from .deploying import as_poll_flow
from .running import current
from .session import Request, Session
from .telling import Polled

__all__ = ["poll_flow"]

#: Prefect's server refuses what fits the pattern, and quotes this text: it is the last to notice a password.
_NO_PASSWORD = {
    "title": "No password here: make a block SwiftCredentials or PollerState, and give its name",
    "pattern": "//[^/?#]*:[^/?#]*@",
}
_TargetUrl = Annotated[
    str,
    Field(description="What to watch: a URL or an absolute path, without user and password"),
    WithJsonSchema({"type": "string", "not": _NO_PASSWORD}),
]
_StateUrl = Annotated[
    str | None,
    Field(description="Where the state is: the name of a block PollerState, or a URL or path"),
    WithJsonSchema({"anyOf": [{"type": "string", "not": _NO_PASSWORD}, {"type": "null"}], "default": None}),
]


@as_poll_flow
async def poll_flow(
    url: _TargetUrl,
    run: Annotated[
        str | None,
        Field(description="The deployment whose runs to make, as flow/deployment; none: only emit events"),
    ] = None,
    parameters: Annotated[
        dict[str, Any] | None, Field(description="Of the runs; may have templates of facts in double braces")
    ] = None,
    batch: Annotated[bool, Field(description="One run for all that waits, instead of one per event")] = False,
    follow: Annotated[bool, Field(description="Go on for ever, and wake when something happens")] = False,
    interval: Annotated[float, Field(description="Seconds between looks while it follows", gt=0)] = 30.0,
    limit: Annotated[int, Field(description="Events that a batch has at most", ge=1)] = 1000,
    batch_for: Annotated[float, Field(description="Seconds for which a batch is collected", ge=0)] = 0.0,
    consumer: Annotated[
        str | None, Field(description="The name under which is remembered what was delivered")
    ] = None,
    state: _StateUrl = None,
    credentials: Annotated[str | None, Field(description="The name of a block SwiftCredentials")] = None,
    emit: Annotated[bool, Field(description="With run: emit events besides, for the feed")] = True,
    patience: Annotated[float, Field(description="Seconds to wait for a server that is away", ge=0)] = 300.0,
    recurse: bool | None = None,
    events: str | list[str] | None = None,
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    default_exclude: bool | None = None,
    settle: float | None = None,
    follow_symlinks: bool | None = None,
    directories: bool | None = None,
    metadata: bool | None = None,
    fingerprint: list[str] | None = None,
    existing: Literal["ignore", "report"] | None = None,
    start: str | int | None = None,
    full_every: float | None = None,
    cloud: str | None = None,
    region: str | None = None,
    interface: str | None = None,
    cacert: str | None = None,
    insecure: bool | None = None,
    options: dict[str, Any] | None = None,
) -> State[Polled]:
    """Poll a target: have a flow run made, or an event emitted, for each file or object that changed.

    Besides the parameters below it takes options of :func:`poller_core.make_poller`: ``recurse``, ``events``,
    ``include``, ``exclude``, ``default_exclude``, ``settle``, ``follow_symlinks``, ``directories``,
    ``metadata``, ``fingerprint``, ``existing``, ``start``, ``full_every``, ``cloud``, ``region``,
    ``interface``, ``cacert``, ``insecure``. By default a new consumer is given what comes after its first
    poll; ``existing="report"`` gives it what is there already, too.

    :param url: what to watch: a URL or an absolute path, without user and password.
    :param run: ``flow/deployment``: one run of it is made per event, exactly one, whatever is killed when.
        None: events are emitted; the runs that automations start for them
        (:func:`poller_prefect.on_created`) are waited for.
    :param parameters: of the runs. By default each parameter of the flow that is called as a fact of the
        event gets it (``url``, ``event_id``, ``event``, ``path``, ``key``, ``size``, ``mtime``, ``etag``,
        ``seq``, ``detected_at``, ``payload``); else templates such as
        ``{"file": "{path}", "year": 2026}``.
    :param batch: with ``run``: one run for all that waits, which takes it with
        :func:`poller_prefect.take_batch`.
    :param follow: go on until cancelled; what happens in a target that can be watched is noticed at once.
    :param interval: seconds between looks while it follows.
    :param limit: how many events a batch has at most.
    :param batch_for: seconds for which a batch is collected after its first event.
    :param consumer: the name under which is remembered what was delivered. The default is the name of the
        deployment that polls; without one ``run``; else the flow's name.
    :param state: where the state is: the name of a block :class:`poller_prefect.PollerState`, or a URL or
        path. The default is the variable ``POLLER_STATE``, a block of the name ``default``, or a file in
        Prefect's home.
    :param credentials: the name of a block :class:`poller_prefect.SwiftCredentials`.
    :param emit: with ``run``: emit an event besides, for the feed and for other automations.
    :param patience: seconds to wait for a server that is away or confirms nothing, before the poll fails.
    :param options: more options, for a poller that somebody else has registered.
    :returns: a :class:`poller_prefect.Polled`; the state's name tells what was found.
    :raises PollerError: if the target can't be looked at, something could not be delivered, or an argument
        can't be. What was found is not lost.
    """
    given = {
        "recurse": recurse,
        "events": events,
        "include": include,
        "exclude": exclude,
        "default_exclude": default_exclude,
        "settle": settle,
        "follow_symlinks": follow_symlinks,
        "directories": directories,
        "metadata": metadata,
        "fingerprint": fingerprint,
        "existing": existing,
        "start": start,
        "full_every": full_every,
        "cloud": cloud,
        "region": region,
        "interface": interface,
        "cacert": cacert,
        "insecure": insecure,
        **(options or {}),
    }
    request = Request(
        url=url,
        run=run,
        parameters=parameters,
        batch=batch,
        follow=follow,
        interval=interval,
        limit=limit,
        batch_for=batch_for,
        consumer=consumer,
        state=state,
        credentials=credentials,
        emit=emit,
        patience=patience,
        options=plain_options(given),
    )
    log: Any = get_run_logger()
    try:
        own = await asyncio.to_thread(current, "poll_flow")
        return await Session(request, own, log).run()
    except PollerError as error:
        # Not raised: what is wrong is in the message, and a trace through Prefect would only bury it.
        # Whoever called this as a function gets the error all the same, as the result of the state.
        message = f"{type(error).__name__}: {error}"
        log.error("%s", message)
        return Failed(message=message, data=error)
