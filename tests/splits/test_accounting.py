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
    assert counts.parts["paper"] == ((0, 0), (0, 0), (0, 0))


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
    assert counts.parts["paper"] == ((858, 5915), (245, 1690), (26, 845))


def test_known_slices_give_the_number_of_slabs_and_where_they_begin():
    # Slices from -10 to 20.5 mm: four slabs of 8 mm, the last one thinner. The nodule spans
    # -1 to 3, the second slab -2 to 6.
    counts = expect_counts(
        [Nodule("A/0", "A", (0.0, 0.0, 1.0), 4.0)],
        ["A", "B"],
        thickness_mm=8.0,
        slabs_per_scan=10,
        n_shifts=1,
        z_extents_mm={"A": (-10.0, 20.5)},
    )
    assert (counts.on_real_slices, counts.slabs) == (1, 14)
    assert (counts.touched.high, counts.positive.high) == (1, 1)


@pytest.mark.parametrize(("rule", "positive"), [("overlap", 2), ("half", 1), ("midplane", 1)])
def test_rules_for_positives(rule, positive):
    # Slabs 0-8 and 8-16 mm. The nodule from 2 to 11 is 6 mm deep in the first, whose middle it
    # crosses, and 3 mm in the second.
    nodule = Nodule("A/0", "A", (0.0, 0.0, 6.5), 9.0)
    counts = expect_counts([nodule], ["A"], thickness_mm=8.0, n_shifts=1, rule=rule)
    assert counts.positive.high == positive


def test_ratios_and_added_healthy_slabs():
    # 1,186 nodules, each alone in its series and in the middle of a slab.
    nodules = [Nodule(f"{i}/0", str(i), (0.0, 0.0, 4.0), 4.0) for i in range(1186)]
    series = [str(i) for i in range(1186)]
    counts = expect_counts(
        nodules, series, thickness_mm=8.0, n_shifts=1, ratios=(6, 2, 2), add_healthy=True
    )
    # 8,450 / 1,226 healthy slabs for each of 1,186: 8,174. A fifth of the positives tests: 237,
    # with 237 * 0.97 / 0.03 = 7,663 healthy ones.
    assert counts.parts["paper"][2] == (237, 7663)
    assert counts.parts["paper"][0][0] == 712
