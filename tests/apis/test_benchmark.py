"""Figures of the benchmark, checked on boxes and candidates that were placed by hand."""

import numpy as np
import pytest

from benchmarks.infer import (
    Differences,
    InferBenchmark,
    InferRun,
    candidate_distance,
    report_lines,
)
from benchmarks.infer_process import box_differences

BOXES = np.array([[10.0, 10, 20, 20], [50, 50, 60, 60]])


def test_each_box_is_compared_with_the_nearest_whatever_the_order():
    ours = BOXES[::-1] + [[0, 0, 0, 0.5], [0.25, 0, 0, 0]]
    found = box_differences((BOXES, np.array([0.9, 0.2])), (ours, np.array([0.3, 0.85])))
    assert found == (0.5, pytest.approx(0.1))


def test_candidates_are_compared_with_the_nearest_and_only_the_best_of_them():
    theirs = [[0.0, 0, 0], *([100.0, 0, 0] for _ in range(19)), [500.0, 0, 0]]
    ours = [[100.0, 0, 0], [0.0, 3, 4]]
    assert candidate_distance(theirs, ours) == (5.0, 20)


def test_no_candidates_on_either_side_agree_and_on_one_side_do_not():
    assert candidate_distance([], []) == (0.0, 0)
    assert candidate_distance([[0.0, 0, 0]], []) == (float("inf"), 0)


def run(way, total):
    seconds = dict.fromkeys(("reading", "preparation", "merging", "writing"), 0.5)
    return InferRun(way, {**seconds, "network": total - 2.0}, total, 36, (512, 512), 900.0)


def test_the_report_has_scans_per_hour_and_the_ratio():
    runs = {w: run(w, t) for w, t in (("stock", 90.0), ("stock, cropped", 40.0), ("ours", 15.0))}
    measured = InferBenchmark("a/b.mhd", "m.pth", 2, 1, runs, Differences(1e-4, 1e-6, 1e-3, 20))
    text = "\n".join(report_lines(measured))
    assert "ours is 6.0 times as fast as stock" in text
    assert "240" in text  # scans an hour at 15 s each
    assert measured.as_dict()["ratio"] == 6.0
