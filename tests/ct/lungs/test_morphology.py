import numpy as np
import pytest

from lungdet_mmdet.ct.lungs import morphology

CUBE_MM = (1.0, 1.0, 1.0)


def single(shape, at):
    mask = np.zeros(shape, np.uint8)
    mask[at] = 1
    return mask


def test_ball_of_one_voxel_is_the_six_neighbours():
    grown = morphology.dilate(single((5, 5, 5), (2, 2, 2)), 1.0, CUBE_MM)
    assert grown.sum() == 7
    assert grown[1, 2, 2] == grown[2, 1, 2] == grown[2, 2, 3] == 1


def test_ball_follows_the_spacing():
    # 4 mm reach one slice of 4 mm, two rows of 2 mm and four columns of 1 mm.
    grown = morphology.dilate(single((5, 7, 11), (2, 3, 5)), 4.0, (4.0, 2.0, 1.0))
    assert np.flatnonzero(grown[:, 3, 5]).tolist() == [1, 2, 3]
    assert np.flatnonzero(grown[2, :, 5]).tolist() == [1, 2, 3, 4, 5]
    assert np.flatnonzero(grown[2, 3, :]).tolist() == list(range(1, 10))


@pytest.mark.parametrize("n_slices", [1, 2, 6])
def test_dilation_equals_the_distance_rule(n_slices):
    mask = (np.random.default_rng(0).random((n_slices, 9, 8)) < 0.03).astype(np.uint8)
    spacing = np.array([2.5, 1.0, 1.5])
    everywhere = np.argwhere(np.ones(mask.shape)) * spacing
    found = np.argwhere(mask) * spacing
    nearest = np.linalg.norm(everywhere[:, None] - found[None], axis=2).min(axis=1)
    # A ball that is taller than two slices, and one that is not.
    for radius_mm in (3.0, 6.0):
        expected = (nearest <= radius_mm).reshape(mask.shape)
        np.testing.assert_array_equal(morphology.dilate(mask, radius_mm, tuple(spacing)), expected)


def test_slices_do_not_leak_into_each_other_in_plane():
    grown = morphology.dilate(single((3, 4, 4), (1, 3, 2)), 1.0, (5.0, 1.0, 1.0))
    assert grown[0].sum() == grown[2].sum() == 0


def test_erosion_spares_the_end_of_the_scan():
    mask = np.zeros((4, 5, 5), np.uint8)
    mask[:2] = 1
    eroded = morphology.erode(mask, 1.0, CUBE_MM)
    assert eroded[0].all()
    assert not eroded[1:].any()


def test_opening_removes_thin_and_keeps_thick():
    mask = np.zeros((9, 9, 20), np.uint8)
    mask[2:7, 2:7, 2:9] = 1
    mask[4, 4, 9:18] = 1
    opened = morphology.opening(mask, 1.0, CUBE_MM)
    assert not opened[:, :, 10:].any()  # the root of the thin part is within the ball
    assert opened[4, 4, 2:9].all()


@pytest.mark.parametrize(("radius_mm", "filled"), [(1.0, False), (2.0, True)])
def test_closing_bridges_gaps_of_twice_its_radius(radius_mm, filled):
    mask = np.ones((9, 9, 13), np.uint8)
    mask[:, :, 5:8] = 0
    assert morphology.closing(mask, radius_mm, CUBE_MM)[4, 4, 6] == filled


def test_closing_keeps_end_slices_and_does_not_reach_them():
    whole = np.ones((3, 6, 6), np.uint8)
    np.testing.assert_array_equal(morphology.closing(whole, 2.0, CUBE_MM), whole)
    below_end = np.ones((6, 6, 6), np.uint8)
    below_end[4:] = 0
    np.testing.assert_array_equal(morphology.closing(below_end, 3.0, CUBE_MM), below_end)


@pytest.mark.parametrize("flip", [1, -1])
def test_closing_draws_no_ring_where_the_scan_cuts_a_narrowing_lung(flip):
    z, y, x = np.ogrid[:20, :41, :41]
    cone = ((y - 20) ** 2 + (x - 20) ** 2 <= (18 - 0.5 * z) ** 2).astype(np.uint8)[::flip]
    dented = cone.copy()
    dented[:, 19:22, :20][:, :, 9:] = 0  # a bay 3 voxels wide, in the last slice too
    closed = morphology.closing(dented, 6.0, (1.0, 1.0, 1.0))
    last = -1 if flip == 1 else 0
    assert not (closed[last] & ~cone[last] & 1).any()
    assert (closed[last] & cone[last]).sum() >= 0.9 * cone[last].sum()


def test_fill_holes_needs_all_three_dimensions():
    mask = np.ones((5, 5, 5), np.uint8)
    mask[2, 2, 2] = 0
    mask[:, 1, 1] = 0  # a tube through the whole mask stays open
    filled = morphology.fill_holes(mask)
    assert filled[2, 2, 2] == 1
    assert not filled[:, 1, 1].any()


def test_largest_component_of_nothing_and_of_two():
    mask = np.zeros((3, 4, 8), np.uint8)
    assert not morphology.largest_component(mask).any()
    mask[1, 1, 1:3] = 1
    mask[1, 1, 5:8] = 1
    assert np.flatnonzero(morphology.largest_component(mask)[1, 1]).tolist() == [5, 6, 7]


def test_growing_labels_meet_half_way_and_stay_in_the_air():
    air = np.zeros((1, 3, 9), np.uint8)
    air[0, 1, :8] = 1
    seeds = np.zeros_like(air)
    seeds[0, 1, 0], seeds[0, 1, 7], seeds[0, 0, 4] = 1, 2, 3
    assert morphology.grow_labels(seeds, air)[0, 1].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0]
    assert not morphology.grow_labels(seeds, air)[0, 0].any()


def test_bounding_box_is_clipped():
    box = morphology.bounding_box(single((4, 6, 8), (3, 2, 7)), (1, 1, 2))
    assert box == (slice(2, 4), slice(1, 4), slice(5, 8))
