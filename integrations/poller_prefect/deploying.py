"""``PollFlow``: a flow that may be called from anywhere, and looks at parameters before Prefect has them.

Guarantees: called where no event loop runs, it runs, and gives its result; inside of one
it gives a coroutine, as any async flow. Served or deployed, it is found by its module, so
it needs no file of the user's. A secret in a parameter raises before anything is stored.

Not guaranteed: that a deployment made by other means (``prefect deploy``, the UI, the API) gets
our error's text; Prefect's server refuses it by the schema of the parameters.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType

from poller_core import Url
from poller_core.hosts import (
    OPTIONS,
    OURS,
    plain_options,
    plain_url,
    refuse_own_state,
    refuse_relative,
    refuse_unknown,
)
from poller_core.listed import options_for

from .settings import STATE, is_place, refuse

__all__ = ["PollFlow"]

#: Parameters that are not options of a poller.
_OURS = frozenset(
    (
        *("url", "run", "parameters", "batch", "follow", "interval", "limit", "batch_for"),
        *("consumer", "state", "credentials", "emit", "patience", "options"),
    )
)


class PollFlow(Flow[Any, Any]):
    """The class of :func:`poller_prefect.poll_flow`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it: at once where no event loop runs, else as a coroutine to be awaited.

        :raises InvalidUrl, InvalidOption: if there is a secret in an argument.
        """
        control = {name: kwargs.pop(name) for name in ("return_state", "wait_for") if name in kwargs}
        _check(kwargs)  # first: what has no name here is told with those that there are
        arguments = dict(inspect.signature(self.fn).bind_partial(*args, **kwargs).arguments)
        _check(arguments)
        if "url" in arguments:
            arguments["url"] = plain_url(arguments["url"])
        coroutine = super().__call__(**arguments, **control)
        return coroutine if _loop_runs() else asyncio.run(_awaited(coroutine))

    def with_options(self, **options: Any) -> PollFlow:
        """A copy with other options of the flow, such as ``name`` or ``retries``."""
        copy = super().with_options(**options)
        # Prefect makes a plain flow of any; only its methods differ from ours.
        copy.__class__ = PollFlow
        return copy  # type: ignore[return-value]

    def serve(self, *args: Any, **options: Any) -> None:
        """Make a deployment and run what is scheduled for it, as :meth:`prefect.Flow.serve`.

        :raises InvalidUrl, InvalidOption: if there is a secret in a parameter.
        """
        super().serve(*args, **_deployed(options))

    async def ato_deployment(self, *args: Any, **options: Any) -> RunnerDeployment:
        """As :meth:`prefect.Flow.ato_deployment`."""
        return await super().ato_deployment(*args, **_deployed(options))

    def to_deployment(self, *args: Any, **options: Any) -> Any:
        """As :meth:`prefect.Flow.to_deployment`: for :func:`prefect.serve`, with other flows."""
        return super().to_deployment(*args, **_deployed(options))

    async def adeploy(self, *args: Any, **options: Any) -> UUID:
        """As :meth:`prefect.Flow.adeploy`."""
        return await super().adeploy(*args, **_deployed(options))

    def deploy(self, *args: Any, **options: Any) -> Any:
        """As :meth:`prefect.Flow.deploy`."""
        return super().deploy(*args, **_deployed(options))


def as_poll_flow(fn: Callable[..., Any]) -> PollFlow:
    """The decorator that makes a :class:`PollFlow` of a function."""
    return PollFlow(fn=fn, name=fn.__name__.replace("_", "-"))


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _awaited(coroutine: Any) -> Any:
    return await coroutine


def _deployed(options: dict[str, Any]) -> dict[str, Any]:
    """Check the parameters of a deployment; have it found by its module."""
    parameters = dict(options.get("parameters") or {})
    if parameters:
        _check(parameters)
        if "url" in parameters:
            refuse_relative(parameters["url"], "workers")
            parameters["url"] = plain_url(parameters["url"])
            _check_values(parameters)
        options["parameters"] = parameters
    options.setdefault("entrypoint_type", EntrypointType.MODULE_PATH)
    return options


def _check_values(parameters: Mapping[str, Any]) -> None:
    """What a run would only tell when it is due."""
    url = parameters["url"]
    if isinstance(url, str) and "{{" not in url:
        location = Url(url)
        refuse_unknown(location)
        _check_options(location, parameters)
    state = parameters.get("state")
    if isinstance(state, str) and is_place(state):
        refuse_own_state(state, STATE)


def _check_options(location: Url, parameters: Mapping[str, Any]) -> None:
    if location.scheme in OURS:
        options = {name: value for name, value in parameters.items() if name in OPTIONS and value is not None}
        options_for(location, {**options, **(parameters.get("options") or {})})


def _check(arguments: Mapping[str, Any]) -> None:
    options = {name: value for name, value in arguments.items() if name not in _OURS}
    options |= arguments.get("options") or {}
    credentials = arguments.get("credentials")
    if credentials is not None and not isinstance(credentials, str):
        options["credentials"] = credentials  # no name of a block: the credentials themselves, most likely
    refuse(plain_url(arguments.get("url", "")), arguments.get("state"), plain_options(options))
