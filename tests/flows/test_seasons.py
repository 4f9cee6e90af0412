"""Seasons of the coastal index: their means, conditions and return periods."""

import math

import pytest

from flows.services.months import Month
from flows.services.seasons import condition, return_periods, season_means


def test_a_season_is_of_the_year_of_its_last_month():
    """December belongs to the summer of the year after; a summer that lacks a month has no mean."""
    index = {Month(1997, 12): 3.0, Month(1998, 1): 2.0, Month(1998, 2): 1.0, Month(1999, 1): 5.0, Month(1999, 2): 5.0}
    assert season_means(index, "DJF") == {1998: 2.0}


@pytest.mark.parametrize(
    ("mean", "named"),
    [
        (0.4, "neutral"),
        (0.41, "weak warm"),
        (1.5, "moderate warm"),
        (3.2, "extraordinary warm"),
        (-1.0, "neutral"),
        (-1.3, "moderate cold"),
        (-2.0, "strong cold"),
    ],
)
def test_a_mean_is_of_the_strongest_condition_that_it_is_beyond(mean, named):
    """The thresholds themselves are not beyond."""
    assert condition(mean) == named


def test_return_periods_count_the_seasons_that_reached_a_condition():
    """Ten of forty years are a period of four, and the interval holds it; a condition that never came is left out."""
    means = {year: 2.0 if year % 4 == 0 else 0.0 for year in range(1960, 2000)}
    found = {period.condition: period for period in return_periods(means, 500, seed="s")}
    assert set(found) == {"weak warm", "moderate warm", "strong warm"}
    strong = found["strong warm"]
    assert (strong.seasons, strong.years) == (10, 4.0)
    assert 3.0 <= strong.low <= 4.0 <= strong.high <= 6.0


def test_a_rare_condition_may_not_come_back_at_all():
    """Many resamples miss the only year that reached it, so that the upper bound is infinite."""
    means = {year: 4.0 if year == 1997 else 0.0 for year in range(1950, 2011)}
    *_, strongest = return_periods(means, 500, seed="s")
    assert strongest.condition == "extraordinary warm" and strongest.years == 61 and math.isinf(strongest.high)


def test_equal_seeds_give_equal_intervals():
    """The same table comes of the same index, whoever computes it again."""
    means = {year: math.sin(year) * 3 for year in range(1950, 2011)}
    first, again, other = (list(return_periods(means, 200, seed=seed)) for seed in ("a", "a", "b"))
    assert first == again != other
