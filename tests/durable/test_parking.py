"""The time after which a parked run wakes and looks at its work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows.durable.parking import LONGEST, SHORTEST, WATCHED, Pending, rest


def test_a_run_wakes_when_such_work_has_usually_ended():
    """With three durations on record, the run wakes after their median. One long duration does not change it much."""
    assert rest([Pending(age=100, took=[400, 500, 9000])]) == 400


def test_without_history_a_run_wakes_after_a_quarter_of_the_age():
    """With fewer than three durations, the run wakes after a quarter of the work's age."""
    assert rest([Pending(age=2000, took=[50, 60])]) == pytest.approx(500)


def test_work_that_takes_longer_than_usual_is_looked_at_after_a_quarter_of_its_age():
    """Work that takes longer than usual may end at any time, so a quarter of its age is the wait."""
    assert rest([Pending(age=1000, took=[100] * 5)]) == pytest.approx(250)


def test_the_slowest_work_decides():
    """The run needs all of its work, so the slowest decides when it wakes."""
    assert rest([Pending(age=10, took=[60] * 3), Pending(age=10, took=[610] * 3)]) == 600


@given(st.lists(st.builds(Pending, st.floats(0, 1e7), st.lists(st.floats(0, 1e7), max_size=6))))
def test_a_run_rests_neither_too_short_nor_too_long(pending):
    """The wait is between half a minute and a quarter of an hour, or an hour while a watcher is there."""
    assert SHORTEST <= rest(pending) <= LONGEST
    assert rest(pending, watched=True) == WATCHED
