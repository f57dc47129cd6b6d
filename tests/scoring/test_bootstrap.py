import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.intervals import percentile_interval, resample_weights


def test_every_resample_draws_as_many_scans_as_there_are():
    weights = resample_weights(7, 50, rng=np.random.default_rng(0))

    assert weights.shape == (7, 50)
    assert (weights.sum(axis=0) == 7).all()
    assert len(np.unique(weights, axis=1).T) > 1


@pytest.mark.parametrize(("n_scans", "n_resamples"), [(0, 10), (5, 0)])
def test_nothing_to_draw_is_an_error(n_scans, n_resamples):
    with pytest.raises(LungDetError, match="at least 1"):
        resample_weights(n_scans, n_resamples, rng=np.random.default_rng(0))


def test_limits_are_the_26th_and_976th_of_a_thousand_values():
    interval = percentile_interval(np.random.default_rng(0).permutation(1000).astype(float))

    assert (interval.low, interval.high, interval.share_defined) == (25.0, 975.0, 1.0)


def test_a_single_value_is_its_own_interval():
    interval = percentile_interval(np.array([3.0]))

    assert (interval.low, interval.high) == (3.0, 3.0)


def test_undefined_resamples_are_left_out_and_told():
    interval = percentile_interval(np.array([np.nan, 1.0, 2.0, np.nan]))

    assert (interval.low, interval.high, interval.share_defined) == (1.0, 2.0, 0.5)


def test_no_defined_resample_gives_no_interval():
    interval = percentile_interval(np.array([np.nan]))

    assert np.isnan([interval.low, interval.high]).all()
    assert interval.share_defined == 0.0


def test_the_interval_of_a_mean_is_that_of_its_normal_approximation():
    # 400 scans, half of them 1: standard error .025, so .5 -/+ 1.96 * .025.
    values = np.repeat([0.0, 1.0], 200)
    weights = resample_weights(400, rng=np.random.default_rng(0))

    interval = percentile_interval(values @ weights / 400)

    assert interval.low == pytest.approx(0.451, abs=0.006)
    assert interval.high == pytest.approx(0.549, abs=0.006)


def test_a_constant_has_no_width():
    weights = resample_weights(5, rng=np.random.default_rng(0))

    interval = percentile_interval(weights.sum(axis=0) / 5)

    assert (interval.low, interval.high) == (1.0, 1.0)
