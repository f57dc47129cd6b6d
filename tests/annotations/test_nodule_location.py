import numpy as np
import pytest

from lungdet_mmdet.annotations.mask_nodules import nodule_location

SPACING = (1.25, 0.7, 0.7)
SHAPE = (40, 80, 80)
z, y, x = (
    (np.arange(n) - 0.5 * (n - 1)).reshape(np.roll((-1, 1, 1), axis)) * step
    for axis, (n, step) in enumerate(zip(SHAPE, SPACING, strict=True))
)


def chest(*tissue, wall_mm=24.0):
    """A lung of air with a wall where x is above ``wall_mm``, and tissue in it; its lung mask."""
    lung = np.broadcast_to(x < wall_mm, SHAPE)
    volume = np.where(lung, -850, 40).astype(np.int16)
    for part in tissue:
        volume[part & lung] = 40
    return lung.astype(np.uint8), volume


def ball(radius_mm, centre_x=0.0):
    return z**2 + y**2 + (x - centre_x) ** 2 <= radius_mm**2


def rod(radius_mm, centre_y=0.0):
    """A vessel along x."""
    return np.broadcast_to(z**2 + (y - centre_y) ** 2 <= radius_mm**2, SHAPE)


def place(nodule, lung, volume):
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(nodule))
    start = tuple(part.start for part in box)
    return nodule_location(start, nodule[box], lung, volume, SPACING)


def test_a_nodule_in_air_is_isolated():
    assert place(ball(4), *chest(ball(4))) == "isolated"


def test_its_blurred_rim_is_no_vessel():
    # 1.4 mm more than the mask says.
    assert place(ball(4), *chest(ball(5.4))) == "isolated"


@pytest.mark.parametrize(("gap_mm", "kind"), [(0.5, "pleural"), (4.0, "isolated")])
def test_the_pleura_counts_where_it_is_near(gap_mm, kind):
    nodule = ball(4, centre_x=20.0 - gap_mm)
    assert place(nodule, *chest(nodule)) == kind


def test_a_vessel_through_a_nodule_and_one_that_passes():
    assert place(ball(4), *chest(ball(4), rod(1.5))) == "vascular"
    assert place(ball(4), *chest(ball(4), rod(1.5, centre_y=4.5))) == "vascular"
    assert place(ball(4), *chest(ball(4), rod(1.5, centre_y=8.0))) == "isolated"


def test_a_thin_spicule_is_no_vessel():
    spicule = np.zeros(SHAPE, bool)
    spicule[20, 40, :40] = True  # 0.7 x 1.25 mm across, and out on one side
    assert place(ball(4), *chest(ball(4), spicule)) == "isolated"


def test_the_pleura_comes_before_a_vessel():
    nodule = ball(4, centre_x=20.0)
    assert place(nodule, *chest(nodule, rod(1.5))) == "pleural"


def test_a_mask_may_reach_beyond_the_volume():
    lung, volume = chest(ball(4))
    far = np.ones((4, 6, 6), bool)
    assert nodule_location((-2, -3, 10), far, lung, volume, SPACING) in ("isolated", "vascular")


@pytest.mark.parametrize("seed", [1, 2])
def test_it_sees_where_a_phantoms_nodules_were_painted(seed):
    from lungdet_mmdet.phantom.findings import PhantomNodule
    from lungdet_mmdet.phantom.scan import Recipe, build_scan

    planned = [
        PhantomNodule((0.0, 0.0, 0.0), 8.0, texture="solid", place=place)
        for place in ("pleural", "vessel", "mediastinal", "isolated")
    ]
    scan = build_scan(seed, size="fine", recipe=Recipe(nodules=planned, excluded_count=0))
    lung = np.isin(scan.lung_labels, (3, 4))
    wanted = {"pleural": "pleural", "mediastinal": "pleural", "vessel": "vascular"}
    assert len(scan.nodules) == 4
    for label, nodule in enumerate(scan.nodules, start=1):
        box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(scan.nodule_labels == label))
        found = nodule_location(
            tuple(part.start for part in box),
            scan.nodule_labels[box] == label,
            lung,
            scan.volume_hu,
            scan.geometry.spacing_zyx_mm,
        )
        assert found == wanted.get(nodule.place, "isolated"), nodule
