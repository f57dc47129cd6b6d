import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import mip_channels, mip_slabs, neighbour_channels
from lungdet_mmdet.errors import LungDetError


def ramp(n_slices, *, dz=1.25, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    """A volume whose slice k is k everywhere, so that a projection is its topmost slice."""
    volume = np.arange(n_slices, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    return volume, ScanGeometry((n_slices, 2, 3), (dz, 1.0, 1.0), (5.0, -7.0, 100.0), direction)


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, -1, 0, 0, 0, -1)], ids=["up", "down"]
)
def test_channels_lie_about_the_middle_of_the_slab(direction):
    volume, geometry = ramp(24, direction=direction)
    _, slabs, _ = mip_slabs(volume, geometry, thickness_mm=7.5)
    channels = mip_channels(volume, geometry, slabs, thicknesses_mm=(5.0, 7.5, 10.0, 15.0))
    assert channels.shape == (4, 2, 3, 4)
    # Slab 1 holds slices 6 to 11, its middle is 8.5: 4 slices end at 10, 6 at 11, 8 at 12 and
    # 12 at 14.
    assert channels[1, 0, 0].tolist() == [10, 11, 12, 14]
    # The lowest slices, where the volume is turned upside down.
    below = mip_channels(23 - volume, geometry, slabs, thicknesses_mm=(5.0, 15.0))
    assert (23 - below[1, 0, 0]).tolist() == [7, 3]


def test_the_slabs_own_thickness_gives_the_slabs():
    volume = np.random.default_rng(0).integers(0, 255, (13, 4, 5), dtype=np.uint8)
    geometry = ScanGeometry((13, 4, 5), (1.25, 1.0, 1.0), (0.0, 0.0, 0.0))
    slabs, geometries, _ = mip_slabs(volume, geometry, thickness_mm=7.5)
    channels = mip_channels(volume, geometry, geometries[:2], thicknesses_mm=(7.5,))
    assert np.array_equal(channels[..., 0], slabs[:2])


def test_channels_end_with_the_scan():
    volume, geometry = ramp(6)
    _, slabs, _ = mip_slabs(volume, geometry, thickness_mm=2.5)  # slices 0-1, 2-3, 4-5
    channels = mip_channels(volume, geometry, slabs, thicknesses_mm=(100.0, 5.0))
    assert channels[:, 0, 0].tolist() == [[5, 2], [5, 4], [5, 5]]


def test_a_single_slice_is_its_own_middle():
    volume, geometry = ramp(3)
    _, slabs, _ = mip_slabs(volume, geometry, thickness_mm=0.0)
    channels = mip_channels(volume, geometry, slabs, thicknesses_mm=(0.0, 3.75))
    assert channels[:, 0, 0].tolist() == [[0, 1], [1, 2], [2, 2]]


@pytest.mark.parametrize("thicknesses", [(), (-1.0,), (float("nan"),), (float("inf"),)])
def test_impossible_thicknesses_are_refused(thicknesses):
    volume, geometry = ramp(3)
    with pytest.raises(LungDetError, match="channel thicknesses"):
        mip_channels(volume, geometry, [], thicknesses_mm=thicknesses)


def neighbours_of(n_slices: int, **slab_options) -> list[list[int]]:
    """Of slices of 2.5 mm, slice k of grey level k: the grey levels of every slab's channels."""
    slabs, geometries, _ = mip_slabs(*ramp(n_slices, dz=2.5), thickness_mm=7.5, **slab_options)
    channels = neighbour_channels(slabs, geometries)
    assert channels.dtype == slabs.dtype
    return channels[:, 0, 0].tolist()


def test_neighbours_stand_beside_each_slab():
    assert neighbours_of(9) == [[2, 2, 5], [2, 5, 8], [5, 8, 8]]


def test_the_neighbour_of_a_thin_last_slab_is_the_one_below():
    assert neighbours_of(7) == [[2, 2, 5], [2, 5, 6], [5, 6, 6]]


def test_neighbours_begin_where_a_slab_ends_whatever_the_stride():
    # Slabs start on every slice: the one below ends where this one begins, three slices down.
    assert neighbours_of(9, stride_mm=2.5)[3:5] == [[2, 5, 8], [3, 6, 8]]


def test_a_lonely_slab_is_its_own_neighbour():
    assert neighbours_of(1) == [[0, 0, 0]]
