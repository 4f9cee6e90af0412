"""The index and its events, against ENFEN's record and against their own definition."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.services.icen import (
    LEAST_MONTHS,
    THRESHOLDS,
    BasePeriod,
    BasePeriodError,
    anomalies,
    climatology,
    events,
    icen,
)
from flows.services.months import Month, read_series

DATA = Path(__file__).parents[2] / "flows/data/ersst_nino12_monthly.csv"


@pytest.fixture(scope="module")
def ersst():
    return read_series(DATA.read_bytes())


def index_of(series, start=1981, end=2010):
    return icen(anomalies(series, climatology(series, BasePeriod(start, end))))


def run_from(first: Month, values: list[float]) -> dict[Month, float]:
    return {first.plus(step): value for step, value in enumerate(values)}


def test_the_extraordinary_events_are_those_of_enfen(ersst):
    """ENFEN's record knows two extraordinary events: July 1982 to November 1983, March 1997 to September 1998."""
    found = events(index_of(ersst))

    extraordinary = [(str(event.start), str(event.end)) for event in found if event.category == "extraordinary"]
    assert extraordinary == [("1982-07", "1983-11"), ("1997-03", "1998-09")]


def test_the_index_begins_and_ends_one_month_inside_the_data(ersst):
    """The running mean is centred: the first index is February 1950's, the last November 2010's."""
    index = index_of(ersst)

    assert (str(min(index)), str(max(index)), len(index)) == ("1950-02", "2010-11", 730)


def test_the_climatology_is_the_mean_of_each_calendar_month(ersst):
    """Over the base period itself, the anomalies of each calendar month add up to nothing."""
    departures = anomalies(ersst, climatology(ersst, BasePeriod(1971, 2000)))

    for month in range(1, 13):
        inside = [value for at, value in departures.items() if at.month == month and 1971 <= at.year <= 2000]
        assert len(inside) == 30
        assert sum(inside) == pytest.approx(0, abs=1e-9)


def test_another_base_period_moves_the_index_by_the_difference_of_the_climatologies(ersst):
    """Against the colder 1951-1980 every month is warmer, by what the climatologies of its three months differ."""
    recent, early = index_of(ersst), index_of(ersst, 1951, 1980)
    new, old = climatology(ersst, BasePeriod(1981, 2010)), climatology(ersst, BasePeriod(1951, 1980))

    for at in recent:
        shift = sum(new[at.plus(step).month - 1] - old[at.plus(step).month - 1] for step in (-1, 0, 1)) / 3
        assert early[at] - recent[at] == pytest.approx(shift, abs=1.1e-4)
        assert early[at] > recent[at]


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (2010, 1981, "reversed: base_start 2010 is after base_end 1981"),
        (1949, 1980, "base_start is 1949, the data have 1950 to 2010"),
        (1981, 2011, "base_end is 2011, the data have 1950 to 2010"),
        (1, 3, "base_start is 1, the data have 1950 to 2010"),
    ],
)
def test_a_base_period_that_the_data_lack_is_refused(ersst, start, end, words):
    """A reversed base period and one beyond the data name the year at fault."""
    with pytest.raises(BasePeriodError, match=words):
        climatology(ersst, BasePeriod(start, end))


def test_a_base_period_with_gaps_needs_four_fifths_of_its_years(ersst):
    """A calendar month that lacks more than a fifth of its years gives no climatology; a fifth is still enough."""
    lacking = {at: value for at, value in ersst.items() if not (at.month == 3 and 1981 <= at.year < 1987)}
    assert len(climatology(lacking, BasePeriod(1981, 2010))) == 12

    del lacking[Month(1990, 3)]
    with pytest.raises(BasePeriodError, match="month 03 in 23 of 30 years; a climatology needs 24"):
        climatology(lacking, BasePeriod(1981, 2010))


def test_a_missing_month_takes_three_values_from_the_index():
    """The index needs the month and both its neighbours."""
    departures = run_from(Month(1990, 1), [1.0] * 9)
    del departures[Month(1990, 5)]

    assert [at.month for at in icen(departures)] == [2, 3, 7, 8]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.5], []),
        ([0.41, 0.5, 0.41], [("warm", "weak", 3)]),
        ([0.4, 0.5, 0.41], []),
        ([0.5, 3.1, 3.1, 0.5], [("warm", "weak", 4)]),
        ([1.1, 3.1, 3.1, 0.5], [("warm", "moderate", 4)]),
        ([3.1, 0.5, 3.1, 0.5, 3.1], [("warm", "extraordinary", 5)]),
        ([3.0, 3.0, 3.0], [("warm", "strong", 3)]),
        ([1.7, 1.7, 1.7], [("warm", "moderate", 3)]),
        ([-1.0, -1.1, -1.1], []),
        ([-1.1, -1.1, -1.1], [("cold", "weak", 3)]),
        ([-1.3, -1.5, -1.3], [("cold", "moderate", 3)]),
        ([-1.5, -1.5, -9.0], [("cold", "strong", 3)]),
        ([0.5, 0.5, 0.5, -1.1, -1.1, -1.1], [("warm", "weak", 3), ("cold", "weak", 3)]),
    ],
)
def test_categories_follow_the_thresholds(values, expected):
    """The threshold itself is not beyond; a category needs three of the event's months, not in a row."""
    found = events(run_from(Month(1990, 11), values))

    assert [(event.kind, event.category, event.months) for event in found] == expected


def test_a_gap_in_the_index_ends_an_event():
    """Months on both sides of a gap are not consecutive."""
    index = run_from(Month(1990, 1), [2.0] * 7)
    del index[Month(1990, 4)]

    assert [(str(event.start), str(event.end)) for event in events(index)] == [
        ("1990-01", "1990-03"),
        ("1990-05", "1990-07"),
    ]


hundredths = st.integers(-500, 500).map(lambda number: number / 100)
indices = st.lists(st.none() | hundredths, max_size=60).map(
    lambda values: {Month(1990, 1).plus(step): value for step, value in enumerate(values) if value is not None}
)


@settings(max_examples=200, deadline=None)
@given(indices)
def test_events_are_exactly_the_longest_runs_of_three_months(index):
    """Month by month: inside an event all are beyond the threshold, just outside none is, and no run is left out."""
    found = events(index)

    inside: dict[str, set[Month]] = {"warm": set(), "cold": set()}
    for event in found:
        span = [event.start.plus(step) for step in range(event.months)]
        assert span[-1] == event.end
        assert not inside[event.kind] & set(span)
        inside[event.kind] |= set(span)
        assert event.peak == index[event.peak_month]
        assert abs(event.peak) == max(abs(index[at]) for at in span)
        reached = [
            name
            for name, level in THRESHOLDS[event.kind]
            if len([at for at in span if abs(index[at]) > abs(level)]) >= LEAST_MONTHS
        ]
        assert event.category == reached[-1]
    for kind, sign, level in (("warm", 1, 0.4), ("cold", -1, 1.0)):
        beyond = {at for at, value in index.items() if sign * value > level}
        for at in index:
            left = next(step for step in range(99) if at.plus(-step) not in beyond)
            right = next(step for step in range(99) if at.plus(step) not in beyond)
            assert (at in inside[kind]) == (at in beyond and left + right - 1 >= LEAST_MONTHS)
    assert found == sorted(found, key=lambda event: event.start)


@settings(max_examples=100, deadline=None)
@given(indices, st.integers(-400, 400))
def test_events_do_not_depend_on_the_date(index, shift):
    """The same index in other months has the same events in those months."""
    moved = {at.plus(shift): value for at, value in index.items()}

    assert [(e.kind, e.category, e.months, e.start.plus(shift)) for e in events(index)] == [
        (e.kind, e.category, e.months, e.start) for e in events(moved)
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(hundredths, min_size=36, max_size=60), st.integers(-300, 300))
def test_the_index_does_not_depend_on_the_level_of_the_series(values, offset):
    """A constant added to every temperature changes the climatology alone, and no category."""
    series = run_from(Month(1990, 1), [20 + value for value in values])
    shifted = {at: value + offset / 100 for at, value in series.items()}

    assert events(index_of(series, 1990, 1992)) == events(index_of(shifted, 1990, 1992))
