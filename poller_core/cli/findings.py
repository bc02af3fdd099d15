"""What ``poller doctor`` tells, one thing at a time, wherever it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "info", "low", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    level: Level  #: ``low``: it works, but not for long or not well; ``bad``: it does not
    what: str
    advice: str = ""  #: what to do, a command wherever there is one
