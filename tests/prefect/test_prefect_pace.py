"""When Prefect is asked again. The clock is the test's."""

from __future__ import annotations

import pytest
from poller_prefect.pace import Pace


class Asked:
    """A pace, and a clock that goes on by what it says."""

    def __init__(self) -> None:
        self.time = 100.0
        self.pace = Pace(lambda: self.time)

    def look(self, *found: tuple[int, int], confirmed: int = 0) -> float:
        """Look after a pause; how long the next one is."""
        self.time += self.pace.pause
        self.pace.begin()
        for arrived, missing in found:
            self.pace.note(arrived, missing)
        self.pace.end()
        self.pace.confirmed += confirmed
        return self.pace.pause


def test_it_is_asked_when_the_rest_should_be_there() -> None:
    asked = Asked()
    assert asked.look((150, 350)) == pytest.approx(0.7)  # 500 a second so far
    assert asked.look((500, 500)) == pytest.approx(1.0)


def test_it_is_never_asked_too_often_nor_too_seldom() -> None:
    asked = Asked()
    assert asked.look((1000, 1)) == 0.1
    assert asked.look((1001, 100_000)) == 1.0


def test_less_often_while_nothing_comes() -> None:
    asked = Asked()
    assert [round(asked.look((0, 5)), 3) for _ in range(5)] == [0.45, 0.675, 1.0, 1.0, 1.0]
    assert asked.look((40, 1)) < 0.2


def test_what_is_confirmed_counts_on() -> None:
    asked = Asked()
    asked.look((10, 1), confirmed=10)
    # Nothing new has come, though fewer are on their way.
    assert asked.look((0, 5)) > 0.1


def test_some_wait_for_an_automation_and_others_do_not() -> None:
    asked = Asked()
    assert asked.look((2, 8), (0, 1)) == pytest.approx(0.15)
    # Both were stored; then a deployment was found that they wait for, which has done nothing yet.
    assert asked.look((0, 1)) == pytest.approx(0.225)
    assert asked.look((0, 1)) > 0.225
    assert asked.look((1, 1)) <= 1.0


def test_as_long_as_nothing_is_known_it_goes_by_how_many_they_are() -> None:
    for count, pause in [(1, 0.3), (250, 0.5), (500, 1.0), (2000, 1.0)]:
        asked = Asked()
        asked.pace.sent_off(count)
        assert asked.pace.sent
        assert asked.pace.pause == pause
    asked.look((499, 1))
    asked.pace.sent_off(500)
    assert asked.pace.pause == 0.1


def test_a_clock_that_stands_still() -> None:
    pace = Pace(lambda: 7.0)
    pace.begin()
    pace.note(3, 1)
    pace.end()
    assert pace.pause == 0.1
