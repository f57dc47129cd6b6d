import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.datasets.transforms import (
    MIPChannels,
    MIPSlabs,
    NeighbourChannels,
    RandomSlabReverse,
)
from lungdet_mmdet.errors import LungDetError


@pytest.fixture
def results():
    """Twelve slices of 1.25 mm, slice k of grey level k, in two slabs."""
    volume = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    geometry = ScanGeometry((12, 4, 4), (1.25, 1.0, 1.0), (0.0, 0.0, 0.0))
    return MIPSlabs(7.5).transform({"volume": volume, "geometry": geometry})


def test_mip_channels_replace_the_slabs_and_nothing_else(results):
    before = dict(results)
    out = MIPChannels((2.5, 5.0, 15.0)).transform(results)
    # Middles at 2.5 and 8.5: two slices end at 3 and 9, four at 4 and 10, twelve at 8 and 11.
    assert out["slabs"][:, 0, 0].tolist() == [[3, 4, 8], [9, 10, 11]]
    assert all(out[key] is before[key] for key in before if key != "slabs")


def test_the_depth_of_the_slab_itself_is_handed_on(results):
    # The highest of slices 0 to 5 is the last: 5.5 of 6 slices up, and so in the other slab.
    for step in (MIPChannels(), NeighbourChannels()):
        out = step.transform(dict(results))
        assert np.unique(out["slab_depths"]).tolist() == [round(255 * 5.5 / 6)]


def test_a_config_can_leave_the_depth_out(results):
    del results["slab_depths"]
    assert "slab_depths" not in MIPSlabs(depth=False).transform(results)


def test_neighbour_channels_replace_the_slabs(results):
    out = NeighbourChannels().transform(results)
    assert out["slabs"][:, 0, 0].tolist() == [[5, 5, 11], [5, 11, 11]]


@pytest.mark.parametrize("thicknesses", [(5.0,), (5.0, 10.0, 15.0, 20.0)])
def test_an_image_has_three_channels(thicknesses):
    with pytest.raises(LungDetError, match="an image has 3 channels"):
        MIPChannels(thicknesses)


@pytest.mark.parametrize(("prob", "seen"), [(0.0, [5, 11, 17]), (1.0, [17, 11, 5])])
def test_neighbours_change_places_and_the_slab_itself_stays(prob, seen):
    image = np.tile(np.array([5, 11, 17], np.uint8), (4, 4, 1))
    out = RandomSlabReverse(prob).transform({"img": image})["img"]
    assert out.flags.c_contiguous
    assert np.unique(out.reshape(-1, 3), axis=0).tolist() == [seen]
