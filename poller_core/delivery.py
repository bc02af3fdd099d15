"""What a consumer is given: batches.

A batch is read from the journal and acknowledged as one. Guarantees: events
that were not acknowledged are given again, with the same ids and content;
acknowledging twice does no harm. Not guaranteed: that an event is given only
once to a consumer that fails between its work and the acknowledgement; where
that matters, use a claim or make the work safe to repeat by the event's id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import overload

from .events import Event

__all__ = ["AsyncBatch", "Batch", "Claim", "Waiting"]


@dataclass(frozen=True)
class Waiting:
    """What waits for a consumer: how much, and from where to where; none of it is given out."""

    count: int = 0  #: how many events, up to the limit that was asked for
    first: int | None = None  #: the seq of the first of them
    last: int | None = None  #: the seq of the last of them
    since: datetime | None = None  #: when the first of them was found, UTC

    def __bool__(self) -> bool:
        return self.count > 0


class _Events(Sequence[Event]):
    """Some events, in order."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self.events[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Events):
            return self.events == other.events
        if isinstance(other, list):
            return self.events == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.events)} events>"


class Claim(_Events):
    """A batch that belongs to a token: already past the consumer, and the same whenever the token asks."""

    def __init__(self, events: Sequence[Event], token: str) -> None:
        super().__init__(events)
        self.token = token


class Batch(_Events):
    """Events to work on and then acknowledge.

    As a context manager it is acknowledged at the end of the block, unless the
    block fails; then its events are given again.
    """

    def __init__(self, events: Sequence[Event], acknowledge: Callable[[], None]) -> None:
        super().__init__(events)
        self._acknowledge = acknowledge
        self.acknowledged = False

    def ack(self) -> None:
        """Acknowledge all of the batch; again does nothing."""
        if not self.acknowledged:
            self._acknowledge()
            self.acknowledged = True

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.ack()


class AsyncBatch(_Events):
    """The same for asyncio: ``await batch.ack()``, or ``async with batch:``."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.events)
        self._batch = batch

    @property
    def acknowledged(self) -> bool:
        """Whether it has been acknowledged."""
        return self._batch.acknowledged

    async def ack(self) -> None:
        """Acknowledge all of the batch, without blocking the loop; again does nothing."""
        if not self._batch.acknowledged:
            import asyncio  # late, as it takes 10 MiB: who awaits has paid for it already

            await asyncio.to_thread(self._batch.ack)

    async def __aenter__(self) -> AsyncBatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.ack()
