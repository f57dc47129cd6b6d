import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.split_part import counts_at_positive_rate, draw_at_positive_rate, shares


@pytest.mark.parametrize(
    ("n_positive", "n_healthy", "rate", "kept"),
    [
        (10, 1000, 0.1, (10, 90)),  # healthy ones suffice
        (10, 90, 0.1, (10, 90)),
        (123, 845, 0.03, (26, 845)),  # 845 * 3 / 97 = 26.1
        (5, 10, 0.01, (1, 10)),  # 0.1 rounds to none, but the last positive stays
        (0, 10, 0.1, (0, 10)),
        (4, 10, 1.0, (4, 0)),
        (4, 0, 1.0, (4, 0)),
    ],
)
def test_healthy_slabs_are_dropped_before_positives(n_positive, n_healthy, rate, kept):
    assert counts_at_positive_rate(n_positive, n_healthy, rate) == kept


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_rate_is_an_error(rate):
    with pytest.raises(LungDetError, match="positive rate is"):
        counts_at_positive_rate(3, 3, rate)


def test_a_rate_without_healthy_slabs_is_an_error():
    with pytest.raises(LungDetError, match="none of the 3 slabs is healthy"):
        counts_at_positive_rate(3, 0, 0.1)


def test_the_draw_is_sorted_seeded_and_has_the_rate():
    is_positive = np.arange(1000) % 20 == 0
    drawn = draw_at_positive_rate(is_positive, 0.5, 7)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert is_positive[drawn].sum() == 50
    assert len(drawn) == 100
    assert drawn.tolist() == draw_at_positive_rate(is_positive, 0.5, 7).tolist()
    assert drawn.tolist() != draw_at_positive_rate(is_positive, 0.5, 8).tolist()


def test_a_higher_rate_only_removes_healthy_slabs():
    is_positive = np.arange(1000) % 20 == 0
    many, few = (set(draw_at_positive_rate(is_positive, r, 0).tolist()) for r in (0.1, 0.3))
    assert few < many


def test_ignored_slabs_are_never_drawn():
    is_positive = np.array([True, False, False, False])
    is_ignored = np.array([False, True, False, False])
    drawn = draw_at_positive_rate(is_positive, 0.01, 0, is_ignored=is_ignored)
    assert drawn.tolist() == [0, 2, 3]


def test_without_slabs_nothing_is_drawn():
    assert draw_at_positive_rate(np.zeros(0, dtype=bool), 0.1, 0).tolist() == []


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (1226, [858, 245, 123]),  # 858.2, 245.2, 122.6
        (8450, [5915, 1690, 845]),
        (10, [7, 2, 1]),
        (8, [6, 1, 1]),  # 5.6, 1.6, 0.8: test, then train (first of the tie) are rounded up
        (4, [2, 1, 1]),
        (3, [1, 1, 1]),
        (2, [1, 0, 1]),
        (1, [1, 0, 0]),
        (0, [0, 0, 0]),
    ],
)
def test_shares(n, counts):
    assert shares(n, (0.7, 0.2, 0.1)) == counts


@given(n=st.integers(0, 500), ratios=st.lists(st.floats(0.01, 10), min_size=3, max_size=3))
def test_shares_sum_up_and_leave_nobody_out(n, ratios):
    counts = shares(n, ratios)
    assert sum(counts) == n
    assert n < 3 or min(counts) >= 1


def test_a_ratio_of_zero_is_an_error():
    with pytest.raises(LungDetError, match="above 0"):
        shares(10, (0.9, 0.1, 0.0))
