import math

import pytest

from lungdet_mmdet.scoring.intervals import binomial_interval, poisson_interval


def test_twelve_of_twelve_is_no_certainty():
    limits = binomial_interval(1.0, 12)

    # 0.025 ** (1 / 12): the share at which twelve hits in a row have a chance of 2.5 %.
    assert limits.low == pytest.approx(0.025 ** (1 / 12))
    assert limits.high == 1.0


def test_none_of_twelve_mirrors_it():
    assert binomial_interval(0.0, 12).high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert binomial_interval(0.0, 12).low == 0.0


def test_one_of_two_by_hand():
    # P(at least one of two) = 1 - (1 - p)^2 = 0.025, and the other limit by symmetry.
    low = 1 - math.sqrt(0.975)

    assert binomial_interval(0.5, 2).low == pytest.approx(low)
    assert binomial_interval(0.5, 2).high == pytest.approx(1 - low)


def test_nothing_tried_says_nothing():
    assert math.isnan(binomial_interval(1.0, 0).low)
    assert math.isnan(binomial_interval(float("nan"), 5).high)
    assert math.isnan(poisson_interval(0, 0.0).high)


def test_no_event_in_two_units():
    # exp(-2 r) = 0.025
    limits = poisson_interval(0, 2.0)

    assert (limits.low, limits.high) == (0.0, pytest.approx(-math.log(0.025) / 2))


def test_events_are_spread_around_their_rate():
    limits = poisson_interval(10, 5.0)

    # From the tables of the Poisson distribution: 4.795 to 18.39 for ten events.
    assert limits.low == pytest.approx(4.795 / 5, abs=1e-3)
    assert limits.high == pytest.approx(18.390 / 5, abs=1e-3)
