import numpy as np
import pytest

from lungdet_mmdet.semireal.crops import NoduleCrop, measure_crop
from lungdet_mmdet.semireal.insertion import (
    Pose,
    Stamp,
    blend,
    outline_of,
    stamp_nodule,
    take_apart,
)

AIR, LUNG, BODY = -1000.0, -850.0, 0.0


def crop_of(mask, *, lung_hu=LUNG, spacing=(1.0, 1.0, 1.0)):
    hu = np.where(mask, BODY, lung_hu).astype(np.float32)
    return NoduleCrop("n", "p", hu, mask, spacing)


def source_of(crop):
    return take_apart(crop, measure_crop(crop))


def ball(radius, size=25):
    axis = np.arange(size) - size // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def stamped(crop, pose=None, *, centre=(30.0, 30.0, 30.0), spacing=(1.0, 1.0, 1.0)):
    return stamp_nodule(
        source_of(crop), pose or Pose(), centre_zyx=np.array(centre), spacing_zyx_mm=spacing
    )


def plain_stamp(opacity, *, excess=0.0, shape=(1, 1, 1)):
    return Stamp(
        (0, 0, 0),
        np.ones(shape, np.float32),
        np.full(shape, opacity, np.float32),
        np.full(shape, excess, np.float32),
        BODY,
    )


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (0.6, 1.3, 1.3)])
@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_a_nodule_keeps_its_volume_on_every_grid(spacing, scale):
    stamp = stamped(crop_of(ball(5.0)), Pose(scale, 0.7), spacing=spacing)
    volume = stamp.share.sum() * np.prod(spacing)
    assert volume == pytest.approx(515 * scale**3, rel=0.02)


def test_its_centroid_comes_to_lie_where_it_was_asked():
    stamp = stamped(crop_of(ball(4.0)), centre=(20.3, 31.6, 28.5))
    weights = stamp.share / stamp.share.sum()
    local = [(weights * np.arange(n).reshape(s)).sum() for n, s in _axes(stamp.share.shape)]
    assert np.add(local, stamp.start_zyx) == pytest.approx((20.3, 31.6, 28.5), abs=0.02)


def _axes(shape):
    for axis, n in enumerate(shape):
        yield n, [-1 if a == axis else 1 for a in range(3)]


def test_a_thin_nodule_fills_a_fifth_of_a_slice_five_times_as_thick():
    mask = np.zeros((11, 25, 25), bool)
    mask[5, 5:20, 5:20] = True
    stamp = stamped(crop_of(mask, lung_hu=AIR), spacing=(5.0, 1.0, 1.0))
    middle = tuple(30 - first for first in stamp.start_zyx)
    assert stamp.opacity[middle] == pytest.approx(0.2)
    new = blend(np.full(stamp.share.shape, AIR, np.int16), stamp, np.ones(stamp.share.shape, bool))
    assert new[middle] == -800
    assert new[middle[0] + 1, middle[1], middle[2]] == AIR


def test_a_quarter_turn_takes_an_arm_from_x_to_y():
    mask = np.zeros((9, 25, 25), bool)
    mask[4, 12, 12:20] = True
    mask[3:6, 10:15, 10:15] = True
    plain = stamped(crop_of(mask))
    turned = stamped(crop_of(mask), Pose(turn_rad=np.pi / 2))
    assert _reach(plain, 2) > _reach(plain, 1) + 3
    assert _reach(turned, 1) > _reach(turned, 2) + 3


def _reach(stamp, axis):
    """Voxels from the asked centre to the farthest full one, towards higher indices."""
    return int(np.argwhere(stamp.share > 0.4)[:, axis].max()) + stamp.start_zyx[axis] - 30


def test_directions_turn_as_the_nodule_does():
    assert Pose(2.0, np.pi / 2).turned((0, 0, 1)) == pytest.approx((0, 1, 0))
    assert Pose(1.0, np.pi / 2).turned((0, 1, 0)) == pytest.approx((0, 0, -1))
    mirrored = Pose(1.0, 0.0, (True, False, True))
    assert mirrored.turned((1, 0.5, 0.25)) == pytest.approx((-1, 0.5, -0.25))


def test_half_nodule_half_air():
    one = np.ones((1, 1, 1), bool)
    assert blend(np.full((1, 1, 1), -1000, np.int16), plain_stamp(0.5), one)[0, 0, 0] == -500
    # Calcium comes on top.
    calcified = plain_stamp(1.0, excess=400.0)
    assert blend(np.full((1, 1, 1), -1000, np.int16), calcified, one)[0, 0, 0] == 400


def test_vessels_stay_and_nothing_gets_darker():
    volume = np.array([[[-900, 80, 200]]], np.int16)
    stamp = plain_stamp(0.5, shape=(1, 1, 3))
    assert blend(volume, stamp, np.ones((1, 1, 3), bool)).tolist() == [[[-450, 80, 200]]]


def test_the_wall_does_not_change():
    volume = np.full((1, 1, 2), -900, np.int16)
    paintable = np.array([[[True, False]]])
    assert blend(volume, plain_stamp(1.0, shape=(1, 1, 2)), paintable).tolist() == [[[0, -900]]]


def test_the_lung_it_came_from_does_not_come_along():
    """A hole in a nodule of a dense lung shows the thin lung that is there now."""
    mask = ball(6.0)
    crop = crop_of(mask, lung_hu=-700.0)
    crop.hu[ball(2.0)] = -700.0
    stamp = stamped(crop)
    new = blend(np.full(stamp.share.shape, -950, np.int16), stamp, np.ones(stamp.share.shape, bool))
    middle = tuple(30 - first for first in stamp.start_zyx)
    assert new[middle] == -950
    assert new[middle[0], middle[1], middle[2] + 4] == BODY
    assert (new[stamp.share == 0] == -950).all()


def test_the_rim_has_no_seam():
    """From body to lung no step is larger than that of a blurred edge, and none goes below."""
    soft = np.exp(-np.maximum(np.hypot(*np.mgrid[-12:13, -12:13]) - 4, 0))
    hu = np.repeat((LUNG + soft * (BODY - LUNG))[None], 15, axis=0).astype(np.float32)
    mask = np.repeat((soft > 0.35)[None], 15, axis=0)
    stamp = stamped(NoduleCrop("n", "p", hu, mask, (1.0, 1.0, 1.0)), centre=(30.0, 30.0, 30.0))
    new = blend(np.full(stamp.share.shape, -900, np.int16), stamp, np.ones(stamp.share.shape, bool))
    middle = 30 - stamp.start_zyx[0], 30 - stamp.start_zyx[1], 30 - stamp.start_zyx[2]
    profile = new[middle[0], middle[1], middle[2] :].astype(int)
    assert (np.diff(profile) <= 0).all()
    # The edge itself falls by a factor e per voxel: at most 63 % of 900 HU in one step.
    assert -np.diff(profile).min() <= 0.64 * 900


def test_the_outline_of_a_nodule_thinner_than_a_slice_is_kept():
    mask = np.zeros((11, 25, 25), bool)
    mask[5, 8:17, 8:17] = True
    stamp = stamped(crop_of(mask), spacing=(5.0, 1.0, 1.0))
    outline = outline_of(stamp, np.ones(stamp.share.shape, bool))
    assert outline.any(axis=0).sum() == 81
    assert not outline_of(stamp, np.zeros(stamp.share.shape, bool)).any()
