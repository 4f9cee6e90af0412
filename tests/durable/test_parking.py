"""The time after which a parked run wakes and looks at its work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows.durable.parking import LONGEST, SHORTEST, WATCHED, rest


def test_a_run_wakes_after_a_quarter_of_the_age_of_its_oldest_work():
    """The run needs all of its work. What has taken long may take as long again, so it is looked at more rarely."""
    assert rest([100, 2000]) == pytest.approx(500)


@given(st.lists(st.floats(0, 1e7)))
def test_a_run_rests_neither_too_short_nor_too_long(ages):
    """The wait is between half a minute and a quarter of an hour, or an hour while a watcher is there."""
    assert SHORTEST <= rest(ages) <= LONGEST
    assert rest(ages, watched=True) == WATCHED
