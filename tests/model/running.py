"""How random histories are run: by whom, how many, and with pages so small that little makes many."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.model.sides import HOOK

#: Pages, windows and steps of a few entries.
SMALL = {
    "poller_core.snapshot.PAGE_ENTRIES": 4,
    "poller_core.snapshot.PAGE_MAX": 7,
    "poller_core.snapshot.PAGE_MIN": 3,
    "poller_core.look._STEP_PAGES": 3,
    "poller_core.look._STEP_RECORDS": 5,
}


def make_small(monkeypatch: pytest.MonkeyPatch, more: dict[str, int]) -> None:
    """Have everything in small steps, and the hook in place of the crash points."""
    for name, value in (SMALL | more).items():
        monkeypatch.setattr(name, value)
    for module in list(sys.modules.values()):
        if module.__name__.startswith("poller_core.") and hasattr(module, "crash_point"):
            monkeypatch.setattr(module, "crash_point", HOOK)


def run(machine: type[RuleBasedStateMachine], examples: int, steps: int, **attributes: Any) -> None:
    """Try so many histories, the same ones each time; or ``MODEL_EXAMPLES`` new ones.

    :param attributes: of the machine's class.
    """
    many = int(os.environ.get("MODEL_EXAMPLES", "0"))
    run_state_machine_as_test(
        type("Mine", (machine,), attributes),
        settings=settings(
            max_examples=many or examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=not many,
            print_blob=True,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if many else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
