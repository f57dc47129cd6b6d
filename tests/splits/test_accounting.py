import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    read_findings,
    read_nodules,
    read_series,
)
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.accounting import cut_by_grid, expect_counts


def test_a_sphere_cut_by_the_grid():
    # From 5.5 to 15.5 on slabs of 7.5: 2, 7.5 and 0.5 mm. The centre 10.5 lies 3 mm above slab 0
    # (a disk of radius 4) and 4.5 mm below slab 2.
    overlap, section, slab = cut_by_grid(np.array([10.5]), np.array([10.0]), 7.5)
    assert slab.tolist() == [[0, 1, 2]]
    assert overlap == pytest.approx(np.array([[2.0, 7.5, 0.5]]))
    assert section == pytest.approx(np.array([[8.0, 10.0, 2 * np.sqrt(25 - 20.25)]]))


def test_counts_on_a_grid_of_two_shifts():
    # Slabs of 8 mm, grids from 0 and from 4. Nodule from 6 to 12: on the first grid 2 mm in slab 0
    # and 4 in slab 1, on the second all of it in 4-12. Finding of series B from 20 to 22: one slab
    # on each grid.
    counts = expect_counts(
        [Nodule("A/0", "A", (0.0, 0.0, 9.0), 6.0)],
        ["A", "B"],
        [Finding("B", (0.0, 0.0, 21.0), 2.0)],
        thickness_mm=8.0,
        slabs_per_scan=10,
        n_shifts=2,
    )
    assert (counts.positive.low, counts.positive.high, counts.positive.mean) == (1, 2, 1.5)
    assert (counts.best.low, counts.best.high) == (1, 1)
    assert (counts.touched.low, counts.touched.high) == (1, 2)
    assert (counts.ignored.low, counts.ignored.high) == (1, 1)
    # 20 slabs less 2 positives (1.5 rounded to even) and 1 ignored.
    assert (counts.slabs, counts.healthy) == (20, 17)


def test_a_finding_on_a_positive_slab_takes_nothing_away():
    counts = expect_counts(
        [Nodule("A/0", "A", (0.0, 0.0, 4.0), 4.0)],
        ["A"],
        [Finding("A", (30.0, 0.0, 4.0), 2.0), Finding("A", (0.5, 0.0, 4.0), 2.0)],
        thickness_mm=8.0,
        n_shifts=1,
    )
    assert counts.findings == 1  # the second lies inside the nodule
    assert counts.ignored.high == 0


def test_no_nodules():
    counts = expect_counts([], ["A"], slabs_per_scan=10)
    assert (counts.positive.high, counts.healthy) == (0, 10)
    assert counts.paper == ((0, 0), (0, 0), (0, 0))


def test_an_impossible_thickness_is_an_error():
    with pytest.raises(LungDetError, match="thickness 0 mm"):
        expect_counts([], ["A"], thickness_mm=0)


@pytest.mark.realdata
def test_luna16_reaches_the_published_counts(luna16_sample):
    series = read_series(luna16_sample / "seriesuids.csv").rows
    nodules = read_nodules(luna16_sample / "annotations.csv").rows
    findings = read_findings(luna16_sample / "annotations_excluded.csv").rows
    counts = expect_counts(nodules, series, findings, n_shifts=3)
    assert counts.best.high <= 1226 <= counts.positive.low
    assert counts.paper == ((858, 5915), (245, 1690), (26, 845))
