"""What a host says where it refuses a secret, and that it shows none."""

from __future__ import annotations

import traceback

import pytest

from poller_core import InvalidOption, InvalidUrl
from poller_core.hosts import Advice, refuse_secrets

__all__ = ["ADVICE", "SECRET", "refused"]

SECRET = "s3cr3t"
ADVICE = Advice(
    host="The host",
    url=lambda shown: f"Write url={shown!r}",
    state="Put it into the configuration",
    option=lambda name: f"Put {name} into the vault",
)


def refused(url: object, state: object = None, options: dict[str, object] | None = None) -> str:
    """What a refusal says, which shows no secret, not even in its traceback."""
    with pytest.raises((InvalidUrl, InvalidOption)) as caught:
        refuse_secrets(url, state, options, advice=ADVICE)
    raised = caught.value
    lines = traceback.format_exception(type(raised), raised, None)  # with its causes, without our source
    assert SECRET not in "".join(lines) + repr(raised)
    return f"{type(raised).__name__}: {raised}"
