import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.froc import FP_RATES, evaluate_froc, froc_curve, match_marks
from lungdet_mmdet.scoring.run_files import Marks


def nodule(uid, x, diameter_mm=10.0):
    return Nodule(f"{uid}/{x}", uid, (float(x), 0.0, 0.0), diameter_mm)


def finding(uid, x, diameter_mm=-1.0):
    return Finding(uid, (float(x), 0.0, 0.0), diameter_mm)


def marks(*rows):
    """Rows of (series, x, score); y and z are 0."""
    return Marks(
        tuple(row[0] for row in rows),
        np.array([[row[1], 0.0, 0.0] for row in rows], dtype=float).reshape(-1, 3),
        np.array([row[2] for row in rows], dtype=float),
    )


def counts_of(matches):
    return (
        matches.true_positives, matches.false_positives, matches.false_negatives,
        matches.ignored, matches.duplicates,
    )  # fmt: skip


def test_a_hit_is_nearer_than_the_radius():
    inside = match_marks(marks(("a", 4.999, 0.9)), [nodule("a", 0)], [], ["a"])
    on_the_edge = match_marks(marks(("a", 5.0, 0.9)), [nodule("a", 0)], [], ["a"])

    assert counts_of(inside) == (1, 0, 0, 0, 0)
    assert counts_of(on_the_edge) == (0, 1, 1, 0, 0)


def test_the_distance_is_taken_in_three_dimensions():
    # (3, 3, 3) is 5.196 mm away: outside, though within 5 mm along every axis.
    off_axis = Marks(("a",), np.array([[3.0, 3.0, 3.0]]), np.array([0.9]))

    assert counts_of(match_marks(off_axis, [nodule("a", 0)], [], ["a"])) == (0, 1, 1, 0, 0)


def test_several_marks_on_a_nodule_count_once_with_the_highest_score():
    found = match_marks(
        marks(("a", 1, 0.4), ("a", 0, 0.9), ("a", 2, 0.6)), [nodule("a", 0)], [], ["a"]
    )

    assert counts_of(found) == (1, 0, 0, 0, 2)
    assert found.scores.tolist() == [0.9]


def test_a_mark_on_an_excluded_finding_is_ignored_with_10_mm_where_unknown():
    excluded = [finding("a", 0), finding("a", 100, 4.0)]
    placed = marks(("a", 4.9, 0.9), ("a", 5.1, 0.8), ("a", 101, 0.7), ("a", 103, 0.6))

    assert counts_of(match_marks(placed, [], excluded, ["a"])) == (0, 2, 0, 2, 0)


def test_a_mark_on_both_a_nodule_and_an_excluded_finding_is_a_hit():
    found = match_marks(marks(("a", 0, 0.9)), [nodule("a", 1)], [finding("a", 0)], ["a"])

    assert counts_of(found) == (1, 0, 0, 0, 0)


def test_one_mark_may_hit_two_overlapping_nodules():
    found = match_marks(marks(("a", 2, 0.9)), [nodule("a", 0), nodule("a", 4)], [], ["a"])

    assert counts_of(found) == (2, 0, 0, 0, 0)


def test_other_series_are_left_out():
    found = match_marks(
        marks(("other", 0, 0.9)), [nodule("other", 0)], [finding("other", 0)], ["a"]
    )

    assert counts_of(found) == (0, 0, 0, 0, 0)


def test_of_a_scan_only_the_best_marks_count_and_ties_at_the_limit_go():
    # Limit 2: the third score is .5, and only what is above it stays.
    placed = marks(("a", 0, 0.9), ("a", 50, 0.5), ("a", 100, 0.5), ("a", 150, 0.1))

    limited = match_marks(placed, [], [], ["a"], max_marks_per_scan=2)
    free = match_marks(placed, [], [], ["a"], max_marks_per_scan=None)

    assert (limited.false_positives, limited.over_limit) == (1, 3)
    assert (free.false_positives, free.over_limit) == (4, 0)


def test_the_default_limit_is_a_hundred():
    placed = marks(*[("a", 10 * number, number / 1000) for number in range(101)])

    assert match_marks(placed, [], [], ["a"]).over_limit == 1


def test_series_must_be_given_once():
    with pytest.raises(LungDetError, match="once"):
        match_marks(marks(), [], [], ["a", "a"])
    with pytest.raises(LungDetError, match="0 series"):
        match_marks(marks(), [], [], [])


def test_the_seven_sensitivities_by_hand():
    # Four scans, four nodules. In order of score: hit, wrong, hit, wrong, wrong, hit; one missed.
    # Points (FP per scan, sensitivity): (0, 1/4), (1/4, 1/4), (1/4, 2/4), (3/4, 2/4), (3/4, 3/4).
    nodules = [nodule(uid, 0) for uid in "abcd"]
    placed = marks(
        ("a", 0, 0.9), ("a", 50, 0.8), ("b", 0, 0.7), ("b", 50, 0.6), ("b", 70, 0.5), ("c", 0, 0.4)
    )  # fmt: skip

    result = evaluate_froc(match_marks(placed, nodules, [], list("abcd")), n_resamples=0)

    expected = [1 / 4, 2 / 4, 2 / 4, 3 / 4, 3 / 4, 3 / 4, 3 / 4]
    assert result.sensitivities == pytest.approx(expected)
    assert result.cpm == pytest.approx(sum(expected) / 7)


def test_between_two_points_the_curve_is_straight():
    # One scan: hit and wrong mark tie, so the curve runs from (0, 0) straight to (1, 1).
    result = evaluate_froc(
        match_marks(marks(("a", 0, 0.5), ("a", 50, 0.5)), [nodule("a", 0)], [], ["a"]),
        n_resamples=0,
    )

    assert result.sensitivities == pytest.approx([0.125, 0.25, 0.5, 1, 1, 1, 1])


def test_healthy_scans_stay_in_the_denominator():
    placed, nodules = marks(("a", 50, 0.9), ("a", 0, 0.8)), [nodule("a", 0)]

    alone = evaluate_froc(match_marks(placed, nodules, [], ["a"]), n_resamples=0)
    among_four = evaluate_froc(match_marks(placed, nodules, [], list("abcd")), n_resamples=0)

    assert alone.sensitivities[:4] == (0.0, 0.0, 0.0, 1.0)
    assert among_four.sensitivities[:4] == (0.0, 1.0, 1.0, 1.0)


def test_no_marks_find_nothing():
    result = evaluate_froc(match_marks(marks(), [nodule("a", 0)], [], ["a", "b"]), n_resamples=20)

    assert result.sensitivities == (0.0,) * 7
    # None of one, in every resample: exact limits.
    limits = result.cpm_interval
    assert (limits.low, limits.high) == (0.0, pytest.approx(0.975))
    assert result.as_json()["false_negatives"] == 1


def test_a_detector_without_false_positives_keeps_its_sensitivity():
    nodules = [nodule("a", 0), nodule("a", 100)]
    result = evaluate_froc(match_marks(marks(("a", 0, 0.9)), nodules, [], ["a"]), n_resamples=0)

    assert result.sensitivities == (0.5,) * 7


def test_without_nodules_nothing_is_claimed():
    as_json = evaluate_froc(match_marks(marks(("a", 0, 0.9)), [], [], ["a"])).as_json()

    assert as_json["cpm"] is None
    assert as_json["cpm_ci95"] == [None, None]
    assert as_json["sensitivities"] == [None] * 7


def test_the_json_holds_the_agreed_names():
    as_json = evaluate_froc(
        match_marks(marks(("a", 0, 0.9)), [nodule("a", 0)], [], ["a"])
    ).as_json()

    assert set(as_json) >= {
        "sensitivities", "cpm", "cpm_ci95", "n_scans", "n_nodules", "true_positives",
        "false_positives", "ignored", "duplicates", "false_negatives",
    }  # fmt: skip


def test_the_interval_holds_the_value_and_depends_on_the_seed_alone():
    rng = np.random.default_rng(5)
    series = [f"s{number}" for number in range(40)]
    nodules = [nodule(uid, 0) for uid in series]
    rows = [(uid, x, rng.random()) for uid in series for x in (0, 50) if rng.random() < 0.7]
    matches = match_marks(marks(*rows), nodules, [], series)

    first = evaluate_froc(matches, n_resamples=200, seed=1)
    again = evaluate_froc(matches, n_resamples=200, seed=1)

    assert first.cpm_interval == again.cpm_interval
    assert first.cpm_interval.low < first.cpm < first.cpm_interval.high


def brute_force(rows, nodules, findings, series, limit):
    """The challenge's evaluation, mark by mark: (scores, labels, counts of what happened)."""
    entries, counts = [], {"missed": 0, "ignored": 0, "duplicates": 0}
    for uid in series:
        of_scan = [(x, score) for name, x, score in rows if name == uid]
        if len(of_scan) > limit:
            cut = sorted((score for _, score in of_scan), reverse=True)[limit]
            of_scan = [(x, score) for x, score in of_scan if score > cut]
        left = dict(enumerate(of_scan))
        for item in nodules:
            if item.seriesuid != uid:
                continue
            best, hits = None, 0
            for number, (x, score) in enumerate(of_scan):
                if (x - item.centre_xyz_mm[0]) ** 2 < (item.diameter_mm / 2) ** 2:
                    hits += 1
                    best = score if best is None else max(best, score)
                    left.pop(number, None)
            if best is None:
                counts["missed"] += 1
            else:
                entries.append((best, True))
                counts["duplicates"] += hits - 1
        for item in findings:
            radius = 5.0 if item.diameter_mm < 0 else item.diameter_mm / 2
            for number, (x, _) in list(left.items()):
                if item.seriesuid == uid and (x - item.centre_xyz_mm[0]) ** 2 < radius**2:
                    counts["ignored"] += 1
                    del left[number]
        entries += [(score, False) for _, score in left.values()]
    return entries, counts


def brute_force_sensitivities(entries, n_missed, n_scans):
    """Read the seven sensitivities off the curve point by point."""
    n_hits = sum(label for _, label in entries)
    n_wrong = len(entries) - n_hits
    points = [(0.0, 0.0)]
    for threshold in sorted({score for score, _ in entries}, reverse=True):
        hits = sum(label for score, label in entries if score >= threshold)
        wrong = sum(not label for score, label in entries if score >= threshold)
        rate = (wrong / n_wrong) * n_wrong / n_scans if n_wrong else 0.0
        points.append((rate, hits / (n_hits + n_missed)))
    values = []
    for rate in FP_RATES:
        before = [point for point in points if point[0] <= rate][-1]
        after = [point for point in points if point[0] > rate][:1]
        share = (rate - before[0]) / (after[0][0] - before[0]) if after else 0.0
        values.append(before[1] + share * ((after[0][1] - before[1]) if after else 0.0))
    return values


uids = st.sampled_from(["a", "b", "c", "elsewhere"])
places = st.integers(0, 40)


@given(
    st.lists(st.tuples(uids, places, st.integers(0, 12).map(lambda n: n / 12)), max_size=25),
    st.lists(st.tuples(uids, places, st.integers(1, 12)), min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(uids, places, st.sampled_from([-1, 2, 7, 12])), max_size=6),
    st.sampled_from([2, 5, 100]),
)
@settings(max_examples=200, deadline=None)
def test_agrees_with_an_evaluation_mark_by_mark(rows, included, excluded, limit):
    series = ["a", "b", "c"]
    nodules = [nodule(*item) for item in included]
    findings = [finding(*item) for item in excluded]
    entries, counts = brute_force(rows, nodules, findings, series, limit)

    matches = match_marks(marks(*rows), nodules, findings, series, max_marks_per_scan=limit)

    assert sorted(zip(matches.scores.tolist(), matches.is_nodule.tolist(), strict=True)) == sorted(
        entries
    )
    assert (matches.false_negatives, matches.ignored, matches.duplicates) == (
        counts["missed"], counts["ignored"], counts["duplicates"],
    )  # fmt: skip
    if matches.true_positives + matches.false_negatives:
        assert froc_curve(matches).sensitivity_at().tolist() == pytest.approx(
            brute_force_sensitivities(entries, counts["missed"], len(series))
        )


@given(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_weights_are_the_same_as_repeating_the_scans(draws, random):
    rows = [(random.choice("abc"), random.randrange(40), random.random()) for _ in range(20)]
    nodules = [nodule("a", 5), nodule("b", 20), nodule("c", 35)]
    weights = np.bincount(draws, minlength=3).astype(float)
    copies = [("abc"[draw], f"copy{number}") for number, draw in enumerate(draws)]
    copied_rows = [(new, x, score) for old, new in copies for uid, x, score in rows if uid == old]
    copied_nodules = [
        Nodule(new, new, item.centre_xyz_mm, item.diameter_mm)
        for old, new in copies
        for item in nodules
        if item.seriesuid == old
    ]

    weighted = froc_curve(match_marks(marks(*rows), nodules, [], list("abc")), weights)
    repeated = froc_curve(
        match_marks(marks(*copied_rows), copied_nodules, [], [new for _, new in copies])
    )

    assert weighted.sensitivity_at() == pytest.approx(repeated.sensitivity_at())


def test_scans_that_nobody_looked_at_are_no_scans_without_false_positives():
    # Four false positives on four scans; six more scans failed, one of them with a nodule.
    wrong = [(uid, 50, 0.5) for uid in "abcd"]
    nodules = [nodule("a", 0), nodule("e", 0)]
    placed = marks(("a", 0, 0.9), *wrong)
    series = list("abcdefghij")
    all_count = evaluate_froc(match_marks(placed, nodules, [], series), n_resamples=0)
    seen = match_marks(placed, nodules, [], series, not_looked_at=list("efghij"))
    without = evaluate_froc(seen, n_resamples=20)
    assert all_count.curve.fp_per_scan.tolist() == [0.0, 0.0, 0.4]
    assert without.curve.fp_per_scan.tolist() == [0.0, 0.0, 1.0]
    # The nodule of the failed scan is missed either way.
    assert without.curve.sensitivity.tolist() == [0.0, 0.5, 0.5]
    assert without.as_json()["n_scans"] == 4
