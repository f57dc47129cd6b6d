"""Balls of soft tissue put on the pleura of real lungs: how much of them the mask keeps."""

import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.mask import segment_lungs
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT
from lungdet_mmdet.ct.reading import read_scan

TISSUE_HU = 40
DEPTH = 0.5
"""The ball's centre lies inside the pleura by this share of its radius."""


def surface_point(lung, towards_yx):
    """Return the last voxel (z, y, x) of a lung at half its height, from its middle outwards."""
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    z = int(round(0.5 * (levels[0] + levels[-1])))
    y, x = (axis.mean() for axis in np.nonzero(lung[z]))
    steps = np.arange(400)
    ys = np.rint(y + steps * towards_yx[0]).astype(int).clip(0, lung.shape[1] - 1)
    xs = np.rint(x + steps * towards_yx[1]).astype(int).clip(0, lung.shape[2] - 1)
    last = np.flatnonzero(lung[z, ys, xs])[-1]
    return np.array([z, ys[last], xs[last]])


def ball(shape, centre_zyx, radius_mm, spacing_zyx_mm):
    z, y, x = (
        (np.arange(n) - c) * s for n, c, s in zip(shape, centre_zyx, spacing_zyx_mm, strict=True)
    )
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2


@pytest.mark.realdata
@pytest.mark.parametrize(("subset", "ending"), [("subset3", "104919"), ("subset9", "003264")])
def test_lesions_of_30_mm_on_the_chest_wall_are_kept(luna16_sample, subset, ending):
    scan = read_scan(next((luna16_sample / subset).glob(f"*{ending}.mhd")))
    # Every second voxel in-plane: the mask is found on blocks of 3 mm anyway.
    volume = np.ascontiguousarray(scan.volume_hu[:, ::2, ::2])
    spacing = tuple(np.array(scan.geometry.spacing_zyx_mm) * (1, 2, 2))
    sound = segment_lungs(volume, spacing_zyx_mm=spacing)
    # Measured on every second voxel: 1.84 % and 2.03 %.
    assert sound.filled_ml < 0.021 * 1000 * sound.volume_l
    lungs = {
        label: sound.grid.to_scan((sound.coarse_labels == label) * np.uint8(200)) > 0
        for label in (RIGHT, LEFT)
    }
    for name, (down, outward) in {"lateral": (0, 1), "posterior": (1, 0)}.items():
        with_balls, parts = volume.copy(), {}
        for label, lung in lungs.items():
            towards = np.array([down, outward if label == LEFT else -outward])
            point = surface_point(lung, towards)
            inwards_mm = np.array([0, *(-towards)]) * DEPTH * 15.0
            lesion = ball(volume.shape, point + inwards_mm / spacing, 15.0, spacing)
            with_balls[lesion] = TISSUE_HU
            parts[label] = lesion & lung
        mask = segment_lungs(with_balls, spacing_zyx_mm=spacing).mask
        for label, part in parts.items():
            assert mask[part].mean() >= 0.85, (name, label)
