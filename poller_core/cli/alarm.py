"""``poller status --check``: what somebody should be told of, as an exit code.

Guarantees: only the state is read; each line of the result names its target and says
what is wrong.

Does not guarantee: that somebody looks at the target at all, unless ``--max-age`` asks: a
poller that can't even begin, for want of credentials say, leaves nothing in the state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from ..errors import InvalidOption
from ..status import Status
from .show import moment

__all__ = ["Alarm"]


@dataclass(frozen=True)
class Alarm:
    """What is too much."""

    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="End with 1, and say why, if a target can't be looked at, parts of it can't be listed, its "
            "first look is not done, or a consumer is older than the journal.",
        ),
    ] = False
    max_age: Annotated[
        float | None,
        typer.Option(
            "--max-age",
            metavar="SECONDS",
            show_default=False,
            help="Also if the last look is older. Implies --check.",
        ),
    ] = None
    max_lag: Annotated[
        int | None,
        typer.Option(
            "--max-lag",
            metavar="EVENTS",
            min=0,
            show_default=False,
            help="Also if a consumer is further behind. Implies --check.",
        ),
    ] = None

    def problems(self, targets: list[Status]) -> list[str]:
        """What is wrong, if anything was asked."""
        if self.max_age is not None and not (self.max_age > 0 and math.isfinite(self.max_age)):
            raise InvalidOption(
                f"--max-age {self.max_age}: expected a number of seconds above 0, such as 300"
            )
        if not self.check and self.max_age is None and self.max_lag is None:
            return []
        return [f"{one.url}: {text}" for one in targets for text in self._of(one)]

    def _of(self, one: Status) -> Iterator[str]:
        if one.error:
            yield one.error
        if one.gaps:
            yield f"{one.gaps} part(s) can't be listed: {'; '.join(one.errors[:3])}"
        if not one.complete:
            yield "the first look is not done"
        age = math.inf if one.last_look is None else time.time() - one.last_look.timestamp()
        if self.max_age is not None and age > self.max_age:
            yield f"the last look was at {moment(one.last_look)}, more than {self.max_age:g} s ago"
        for consumer in one.consumers:
            if consumer.seq + 1 < one.oldest_seq:
                yield (
                    f"consumer {consumer.name!r} has read up to {consumer.seq}, and the journal begins at "
                    f"{one.oldest_seq}"
                )
            if self.max_lag is not None and consumer.lag > self.max_lag:
                yield f"consumer {consumer.name!r} is {consumer.lag} events behind"
