import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.scoring.slab_outcomes import AnomalyUnits, anomaly_scores, scan_units, slab_units
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import found, nodule_of, slab, slab_set

NODULE = TruthBox((0.0, 0.0, 10.0, 10.0), 10.0)
GRAZED = TruthBox((0.0, 0.0, 4.0, 4.0), 10.0, is_ignored=True, kind="grazed")
EXCLUDED = TruthBox((0.0, 0.0, 9.0, 9.0), 9.0, is_ignored=True, kind="excluded")


def units_of(positive, healthy, series_rows=None):
    scores = np.array([*positive, *healthy], dtype=float)
    rows = np.arange(len(scores)) if series_rows is None else np.array(series_rows)
    return AnomalyUnits(
        "slab",
        scores,
        np.arange(len(scores)) < len(positive),
        tuple(np.array([score]) for score in scores),
        rows,
        int(rows.max()) + 1 if len(rows) else 0,
    )


def one(figures, name):
    return float(figures[f"slab_{name}"][0])


def scored(number, *scores):
    return found(number, *[(0.0, 0.0, 9.0, 9.0, score) for score in scores])


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    # Pairs: .9 beats all three, .4 beats .1 alone: 4 of 6.
    figures = anomaly_scores(units_of([0.9, 0.4], [0.5, 0.6, 0.1]))

    assert one(figures, "AUROC") == pytest.approx(4 / 6)


def test_ties_count_half():
    assert one(anomaly_scores(units_of([0.5], [0.5, 0.5])), "AUROC") == 0.5


def test_average_precision_by_hand():
    # Best first: right, wrong, right: (1 + 2/3) / 2.
    assert one(anomaly_scores(units_of([0.9, 0.4], [0.5])), "AP") == pytest.approx(5 / 6)


def test_equal_scores_enter_average_precision_together():
    assert one(anomaly_scores(units_of([0.5], [0.5, 0.5, 0.5])), "AP") == 0.25


def test_without_one_of_the_two_kinds_nothing_is_claimed():
    no_healthy = anomaly_scores(units_of([0.9], []), threshold=0.5)
    no_positive = anomaly_scores(units_of([], [0.9]), threshold=0.5)
    nothing = anomaly_scores(units_of([], []))

    assert np.isnan([one(no_healthy, "AUROC"), one(no_healthy, "specificity")]).all()
    assert one(no_healthy, "AP") == one(no_healthy, "sensitivity") == 1.0
    assert np.isnan([one(no_positive, "AUROC"), one(no_positive, "AP")]).all()
    assert np.isnan(one(nothing, "AUROC"))


def test_figures_at_the_threshold():
    units = slab_units(
        slab_set(slab(0, "a", NODULE), slab(1, "a", NODULE), *[slab(n, "b") for n in (2, 3, 4, 5)]),
        [
            scored(0, 0.9),
            scored(1, 0.3),
            scored(2, 0.8, 0.7, 0.2),
            scored(3, 0.5),
            scored(4),
            scored(5, 0.1),
        ],
    )

    figures = anomaly_scores(units, threshold=0.5)

    assert one(figures, "sensitivity") == 0.5
    assert one(figures, "specificity") == 0.5  # two of four healthy slabs stay quiet
    assert one(figures, "false_alarms_per_100") == 75.0  # three boxes on four healthy slabs


def test_slabs_with_nothing_but_ignore_regions_are_left_out():
    units = slab_units(
        slab_set(
            slab(0, "a", NODULE, GRAZED), slab(1, "a", GRAZED), slab(2, "a", EXCLUDED), slab(3, "a")
        ),
        [scored(0, 0.9), scored(1, 0.8), scored(2, 0.7), scored(3, 0.6)],
    )

    assert units.scores.tolist() == [0.9, 0.6]
    assert units.is_positive.tolist() == [True, False]


def test_a_scan_with_excluded_findings_alone_is_healthy():
    units = scan_units(slab_set(slab(0, "a", EXCLUDED)), [scored(0, 0.7)])

    assert (units.is_positive.tolist(), units.scores.tolist()) == ([False], [0.7])


def test_a_scan_scores_as_its_best_slab():
    units = scan_units(
        slab_set(slab(0, "a", NODULE), slab(1, "a"), slab(2, "b"), slab(3, "b")),
        [scored(0, 0.2), scored(1, 0.9), scored(2), scored(3, 0.4)],
    )

    assert units.scores.tolist() == [0.9, 0.4]
    assert units.is_positive.tolist() == [True, False]


def test_scans_that_cannot_be_judged_are_left_out():
    truth = slab_set(
        slab(0, "unseen"),
        slab(1, "grazed", GRAZED),
        slab(2, "discarded"),
        series=("unseen", "grazed", "gone", "healthy without slabs", "discarded"),
        discarded=[Nodule("discarded/0", "discarded", (0.0, 0.0, 0.0), 5.0)],
        nodules=[Nodule("gone/0", "gone", (0.0, 0.0, 0.0), 5.0)],
        unseen=[nodule_of("unseen", 5.0)],
    )

    units = scan_units(truth, [scored(0, 0.3), scored(1, 0.8), scored(2, 0.1)])

    assert units.scores.tolist() == [0.3, 0.0]  # "unseen" and "gone"
    assert units.is_positive.tolist() == [True, True]
    assert units.series_rows.tolist() == [0, 2]


def test_resamples_weigh_the_scans():
    # Scan 0 holds .9 and the healthy .1, scan 1 holds .4 and the healthy .5.
    units = units_of([0.9, 0.4], [0.1, 0.5], series_rows=[0, 1, 0, 1])

    figures = anomaly_scores(units, np.array([[2.0, 0.0], [0.0, 2.0]]), threshold=0.45)

    assert figures["slab_AUROC"].tolist() == [1.0, 0.0]
    assert figures["slab_sensitivity"].tolist() == [1.0, 0.0]
    assert figures["slab_specificity"].tolist() == [1.0, 0.0]


levels = st.lists(st.integers(0, 5).map(lambda number: number / 5), min_size=1, max_size=12)


@given(levels, levels)
@settings(max_examples=100, deadline=None)
def test_agrees_with_counting_pairs_and_thresholds(positive, healthy):
    pairs = [(p > h) + (p == h) / 2 for p in positive for h in healthy]
    precision_at = [
        sum(p >= own for p in positive) / sum(s >= own for s in positive + healthy)
        for own in positive
    ]

    figures = anomaly_scores(units_of(positive, healthy))

    assert one(figures, "AUROC") == pytest.approx(np.mean(pairs))
    assert one(figures, "AP") == pytest.approx(np.mean(precision_at))
