import numpy as np
import pytest

from lungdet_mmdet.phantom.anatomy import Anatomy, grow_pulmonary_trees, sample_in_lung


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(0)
    return grow_pulmonary_trees(Anatomy(), rng, leaves_per_lung=20, leaf_radius_mm=0.5)


def test_tree_of_n_leaves_has_two_n_minus_one_branches(trees):
    # Per lung 20 arterial and 16 venous leaves; each branch is two tubes.
    assert len(trees.vessels) == 2 * (2 * (2 * 20 - 1) + 2 * (2 * 16 - 1))


def test_vessels_taper_and_obey_murray(trees):
    assert (trees.vessels.end_radius <= trees.vessels.start_radius + 1e-9).all()
    assert trees.vessels.start_radius.max() == pytest.approx(0.5 * 20 ** (1 / 3))


def test_every_branch_starts_where_another_ends_or_at_a_root(trees):
    ends = {tuple(p) for p in np.round(trees.vessels.end_xyz, 6)}
    loose = {tuple(p) for p in np.round(trees.vessels.start_xyz, 6)} - ends
    assert len(loose) == 4  # an artery and a vein for each lung


def test_vessels_reach_near_the_pleura():
    rng = np.random.default_rng(1)
    dense = grow_pulmonary_trees(Anatomy(), rng, leaves_per_lung=150, leaf_radius_mm=0.5)
    x, y, z = dense.vessels.end_xyz.T
    depth = -Anatomy().lung(x, y, z)
    assert ((depth > 0) & (depth < 8)).sum() > 50


def test_missing_lung_has_no_vessels():
    rng = np.random.default_rng(0)
    one = grow_pulmonary_trees(
        Anatomy(left_lung=False), rng, leaves_per_lung=20, leaf_radius_mm=0.5
    )
    assert (one.vessels.end_xyz[:, 0] < 0).all()


def test_sampled_points_keep_side_and_depth():
    rng = np.random.default_rng(3)
    points = sample_in_lung(Anatomy(), rng, 50, side=-1, depth_mm=(5.0, 10.0))
    depth = -Anatomy().lung(*points.T)
    assert points.shape == (50, 3)
    assert (points[:, 0] < 0).all()
    assert depth.min() > 5.0
    assert depth.max() < 10.0
