import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule, read_nodules, read_series
from lungdet_mmdet.scoring.ceiling import split_ceiling
from lungdet_mmdet.scoring.slab_records import SlabSet, TruthBox
from lungdet_mmdet.splits.accounting import table_ceiling
from tests.support.slabs import slab as slab_of_boxes


def split(z_mm, diameter_mm=4.0):
    """One slab of z = 0 .. 7.5 mm that shows a nodule at (10, 10, z)."""
    box = TruthBox((18.5, 18.5, 4.0, 4.0), diameter_mm, nodule_id="n")
    slab = slab_of_boxes(1, "a", box, slab_index=0, pixel_mm=0.5, low_mm=0.0)
    return SlabSet({1: slab}, ("a", "b"), (Nodule("n", "a", (10.0, 10.0, z_mm), diameter_mm),))


def depths_at(share):
    return lambda slab: np.full((40, 40), round(255 * share), np.uint8)


@pytest.mark.parametrize(("z_mm", "midplane"), [(3.0, 1.0), (6.0, 0.0)])
def test_the_mid_plane_misses_what_lies_further_off_than_its_radius(z_mm, midplane):
    ceiling = split_ceiling(split(z_mm), depths_at(z_mm / 7.5))

    assert ceiling.midplane["all"] == ceiling.midplane["small"] == midplane
    assert ceiling.depth["all"] == 1.0
    assert ceiling.n_nodules == {"all": 1, "small": 1, "medium": 0, "large": 0}


def test_depths_that_point_elsewhere_lower_the_ceiling():
    assert split_ceiling(split(1.0), depths_at(1.0)).depth["all"] == 0.0


def test_a_split_without_depths_has_the_mid_plane_alone():
    ceiling = split_ceiling(split(3.0), lambda slab: None)

    assert ceiling.depth is None
    figures = ceiling.as_json()
    assert (figures["ceiling_midplane"], figures["ceiling_depth"]) == (1.0, None)
    assert figures["by_band"]["large"] == {
        "ceiling_midplane": None, "ceiling_depth": None, "n_nodules": 0,
    }  # fmt: skip


def test_a_nodule_that_no_slab_shows_counts_as_missed():
    unseen = Nodule("u", "b", (0.0, 0.0, 0.0), 5.0)
    whole = split(3.0)
    both = SlabSet(whole.slabs, whole.series, (*whole.nodules, unseen))

    assert split_ceiling(both, depths_at(0.4)).depth["all"] == 0.5


def test_tables_of_one_large_and_one_small_nodule():
    # 4 mm: the mid-plane of its slab is up to 3.75 mm off. Of six beginnings, 1.25 mm apart, at
    # least three bring it within 2 mm; those that put it near a face do not.
    nodules = [Nodule("a", "s", (0.0, 0.0, 0.0), 30.0), Nodule("b", "t", (0.0, 0.0, 1.0), 4.0)]

    coarse = table_ceiling(nodules, ["s", "t", "u"])
    fine = table_ceiling(nodules, ["s", "t", "u"], stride_mm=2.5)

    assert [coarse.depth[name] for name in ("all", "small", "large")] == [1.0, 1.0, 1.0]
    assert coarse.midplane["large"] == 1.0
    assert 1 / 2 <= coarse.midplane["small"] < 1.0
    assert fine.midplane["small"] == 1.0


@pytest.mark.realdata
def test_the_official_tables_cap_mid_planes_and_not_depths(luna16_sample, monkeypatch):
    monkeypatch.setattr("lungdet_mmdet.splits.accounting.N_BEGINNINGS", 1)
    series = read_series(luna16_sample / "seriesuids.csv").rows
    nodules = read_nodules(luna16_sample / "annotations.csv", known_series=series).rows

    ceiling = table_ceiling(nodules, series)

    assert ceiling.n_nodules["all"] == 1186
    assert 0.88 < ceiling.midplane["all"] < 0.94
    assert ceiling.depth["all"] >= 0.995
