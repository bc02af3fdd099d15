"""What is asked of Prefect's API, patiently.

Guarantees: a call that failed because the server is away, busy or restarting is made
again, ever less often, for as long as the caller's patience lasts; what the server
refused is raised at once. All that is written here may be written twice: events have
ids, and runs idempotency keys.

Not guaranteed: that what the server has acknowledged survives it; see
:mod:`poller_prefect.feed` for events. A flow run that it has acknowledged does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound

from poller_core import InvalidOption, PollerError

__all__ = ["Refused", "Server", "ServerAway"]

T = TypeVar("T")

#: Answers that another try may better: time-outs, too many requests, and the server's own errors.
_PASSING = frozenset({408, 425, 429})
_LONGEST_PAUSE = 5.0
#: A page of events holds no more (INTERACTIVE_PAGE_SIZE of Prefect's server).
PAGE = 50


class ServerAway(PollerError):
    """Prefect's API did not answer for as long as it was waited for; nothing was lost."""


class Refused(PollerError):
    """Prefect's API refused what it was asked for."""


class Server:
    """Prefect's API, as far as a poll needs it.

    :param client: an open client.
    :param patience: how long a server that is away is waited for, seconds.
    :param tell: is told, once, that the server is away, and that it is back.
    """

    def __init__(self, client: PrefectClient, patience: float, tell: Callable[[str], object]) -> None:
        self._client = client
        self._patience = patience
        self._tell = tell
        self.outages = 0  #: how often the server was away, and is back: what it held in memory is gone

    async def call(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        """One call, again until it is answered.

        :raises ServerAway: if the server is away for too long.
        :raises Refused: if it refuses.
        :raises ObjectNotFound: if there is no such thing.
        """
        end, pause, away = time.monotonic() + self._patience, 0.1, False
        while True:
            try:
                answer = await ask()
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status < 500 and status not in _PASSING:
                    raise Refused(f"{what}: Prefect answered {status}: {_reason(error.response)}") from error
                last: Exception = error
            except httpx.TransportError as error:
                last = error
            else:
                if away:
                    self.outages += 1
                    self._tell(f"Prefect's API is back ({what})")
                return answer
            if time.monotonic() + pause >= end:
                raise ServerAway(
                    f"{what}: Prefect's API did not answer for {self._patience:.0f} s "
                    f"({type(last).__name__}: {last}). Nothing is lost; the next poll goes on from here"
                ) from last
            if not away:
                away = True
                self._tell(f"Prefect's API is away ({what}: {type(last).__name__}); trying again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # -- events ----------------------------------------------------------------------

    async def post(self, events: list[dict[str, Any]]) -> None:
        """Send events; that they are taken does not mean that they are kept."""
        await self.call("sending events", lambda: self._client.request("POST", "/events", json=events))

    async def stored(self, ids: Iterable[str], since: datetime) -> set[str]:
        """Which of these events are in the server's database."""
        wanted, found = list(ids), set()
        for start in range(0, len(wanted), PAGE):
            part = wanted[start : start + PAGE]
            for event in await self._events({"id": {"id": part}}, since):
                found.add(event["id"])
        return found

    async def count(self, ids: list[str], since: datetime) -> int:
        """How many of these events are in the server's database, in one call."""
        raw = {
            "filter": {"id": {"id": ids}, "occurred": _window(since)},
            "time_unit": "day",
            "time_interval": 1,
        }
        answer = await self.call(
            "counting events",
            lambda: self._client.request(
                "POST", "/events/count-by/{countable}", path_params={"countable": "event"}, json=raw
            ),
        )
        return sum(int(one["count"]) for one in answer.json())

    async def actions(self, ids: Iterable[str], since: datetime) -> list[dict[str, Any]]:
        """What automations did on these events: ``prefect.automation.action.executed`` and ``.failed``."""
        wanted = [f"prefect.event.{one}" for one in ids]
        found = []
        for start in range(0, len(wanted), PAGE):
            part = wanted[start : start + PAGE]
            names = ["prefect.automation.action.executed", "prefect.automation.action.failed"]
            found += await self._events({"event": {"name": names}, "related": {"id": part}}, since)
        return found

    async def _events(self, wanted: Mapping[str, Any], since: datetime) -> list[dict[str, Any]]:
        raw = {"filter": {**wanted, "occurred": _window(since)}, "limit": PAGE}
        answer = await self.call(
            "reading events back", lambda: self._client.request("POST", "/events/filter", json=raw)
        )
        page = answer.json()
        found: list[dict[str, Any]] = list(page["events"])
        while page.get("next_page"):
            address = page["next_page"]
            answer = await self.call("reading events back", lambda: self._client.request("GET", address))  # noqa: B023
            page = answer.json()
            found += page["events"]
        return found

    # -- automations -----------------------------------------------------------------

    async def automations(self) -> list[Automation]:
        """All automations that wait for events, and are enabled."""
        found: list[Automation] = []
        offset = 0
        while True:
            raw = {"limit": 200, "offset": offset}
            answer = await self.call(
                "reading automations",
                lambda: self._client.request("POST", "/automations/filter", json=raw),  # noqa: B023
            )
            page = answer.json()
            wanted = [one for one in page if one["enabled"] and one["trigger"].get("type") == "event"]
            found += [Automation.model_validate(one) for one in wanted]
            if len(page) < 200:
                return found
            offset += len(page)

    # -- runs ------------------------------------------------------------------------

    async def deployment(self, name: str) -> DeploymentResponse:
        """The deployment of that name.

        :param name: ``flow/deployment``.
        :raises InvalidOption: if there is none.
        """
        if name.count("/") != 1 or not all(name.split("/")):
            raise InvalidOption(
                f"run={name!r}: expected '<flow>/<deployment>', as 'prefect deployment ls' shows it"
            )
        try:
            return await self.call(
                f"reading deployment {name!r}", lambda: self._client.read_deployment_by_name(name)
            )
        except ObjectNotFound:
            there = await self.call("reading deployments", lambda: self._client.read_deployments(limit=20))
            flows = {one.id: one.name for one in await self.call("reading flows", self._flows)}
            names = [f"{flows.get(one.flow_id, '?')}/{one.name}" for one in there]
            shown = ", ".join(sorted(names)) or "none at all"
            raise InvalidOption(f"run={name!r}: there is no such deployment; there are: {shown}") from None

    async def _flows(self) -> list[Any]:
        return list(await self._client.read_flows(limit=200))

    async def create_run(self, deployment_id: UUID, key: str, **given: Any) -> FlowRun:
        """The run of that key; made if there is none."""
        return await self.call(
            "creating a flow run",
            lambda: self._client.create_flow_run_from_deployment(deployment_id, idempotency_key=key, **given),
        )

    async def runs(self, flow_id: UUID, keys: list[str]) -> dict[str, FlowRun]:
        """The runs of a flow that have these keys, by key."""
        raw = {
            "flows": {"id": {"any_": [str(flow_id)]}},
            "flow_runs": {"idempotency_key": {"any_": keys}},
            "limit": len(keys),
        }
        answer = await self.call(
            "reading flow runs", lambda: self._client.request("POST", "/flow_runs/filter", json=raw)
        )
        found = [FlowRun.model_validate(one) for one in answer.json()]
        return {str(run.idempotency_key): run for run in found}


def _window(since: datetime) -> dict[str, str]:
    """A time that surely holds what occurred since; the server's usual one ends at the server's now."""
    until = datetime.now(UTC) + timedelta(days=1)
    return {"since": since.isoformat(), "until": until.isoformat()}


def _reason(response: httpx.Response) -> str:
    try:
        raw = response.json()
    except ValueError:
        return response.text[:500]
    detail = raw.get("detail", raw) if isinstance(raw, dict) else raw
    return str(detail)[:2000]
