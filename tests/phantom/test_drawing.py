import numpy as np
import pytest

from lungdet_mmdet.phantom.drawing import Grid, Tubes, draw_blob, draw_tubes

CUBE = Grid((21, 21, 21), (1.0, 1.0, 1.0), (-10.0, -10.0, -10.0))


def tube(start, end, radius):
    return Tubes(np.array([start], float), np.array([end], float), *[np.array([radius])] * 2)


def share_of(volume, tissue=0.0, background=-1000.0):
    return (volume.astype(float) - background) / (tissue - background)


@pytest.mark.parametrize("radius", [0.3, 0.6, 4.0])
def test_cross_section_of_a_tube_has_its_area(radius):
    # One tube alone hits or misses voxel centres, so average over places within a voxel.
    areas = []
    for dx, dy in np.random.default_rng(0).uniform(0.0, 1.0, size=(60, 2)):
        volume = np.full(CUBE.size_zyx, -1000, np.int16)
        draw_tubes(volume, CUBE, tube((dx, dy, -30), (dx, dy, 30), radius), tissue_hu=0.0)
        areas.append(share_of(volume)[10].sum())
    assert np.mean(areas) == pytest.approx(np.pi * radius**2, rel=0.05)


def test_lumen_lowers_the_density_and_is_labelled():
    volume, labels = np.full(CUBE.size_zyx, 40, np.int16), np.zeros(CUBE.size_zyx, np.uint8)
    part = tube((0, 0, -30), (0, 0, 30), 3.0)
    draw_tubes(volume, CUBE, part, tissue_hu=-1000.0, hollow=True, labels=labels, label=5)
    assert volume[10, 10, 10] == -1000
    assert volume[10, 0, 0] == 40
    assert labels[10, 10].tolist().count(5) == 5  # |x| <= 2; at 3 mm just half is filled


def test_tube_outside_the_grid_changes_nothing():
    volume = np.full(CUBE.size_zyx, -1000, np.int16)
    draw_tubes(volume, CUBE, tube((50, 0, 0), (60, 0, 0), 2.0), tissue_hu=0.0)
    assert (volume == -1000).all()


def test_blob_smaller_than_a_voxel_keeps_its_volume():
    thick = Grid((5, 9, 9), (3.0, 1.0, 1.0), (-6.0, -4.0, -4.0))
    volume = np.full(thick.size_zyx, -1000, np.int16)
    draw_blob(
        volume,
        thick,
        np.zeros(3),
        2.0,
        lambda x, y, z: x * x + y * y + z * z < 1.5**2,
        tissue_hu=0.0,
    )
    # Sphere of 3 mm: 14.137 mm^3 of voxels of 3 mm^3.
    assert share_of(volume).sum() * 3.0 == pytest.approx(14.137, rel=0.08)


def test_box_is_clipped_to_the_grid():
    assert CUBE.box(np.array([-99, -1, 9.2]), np.array([-9.5, 1, 99])) == (
        slice(19, 21),
        slice(9, 12),
        slice(0, 2),
    )
    assert CUBE.box(np.array([11.0, 0, 0]), np.array([12.0, 1, 1])) is None


def test_distance_is_to_the_nearest_surface():
    tubes = Tubes(
        np.array([[0, 0, 0], [0, 20, 0]], float),
        np.array([[10, 0, 0], [10, 20, 0]], float),
        np.array([1.0, 2.0]),
        np.array([3.0, 2.0]),
    )
    # Half way along, the first tube has radius 2.
    assert tubes.distance_to(np.array([[5, 7, 0], [5, 15, 0]], float)).tolist() == [5.0, 3.0]
