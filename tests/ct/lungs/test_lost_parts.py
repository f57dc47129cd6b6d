"""Parts of a lung that are full of tissue: kept, or told by a flag; never silently lost."""

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.lung_mask import TISSUE_HU, ball_share, blocks_of
from lungdet_mmdet.ct.geometry import to_canonical
from lungdet_mmdet.ct.lungs.mask import segment_lungs
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.phantom.scan import build_scan


def upper_lobe(lung, spacing_zyx_mm):
    """The upper 40 % of a lung's height, with the blocks that are partly lung."""
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    upper = lung.copy()
    upper[: round(levels[0] + 0.6 * levels.size)] = False
    return ndimage.binary_dilation(upper, np.ones((3, 3, 3)))


def upper_front(lung, spacing_zyx_mm):
    """The front half of the upper half: every level keeps much of its air."""
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    rows = np.flatnonzero(lung.any(axis=(0, 2)))
    part = lung.copy()
    part[: round(levels.mean())] = False
    part[:, round(rows.mean()) :] = False
    return ndimage.binary_dilation(part, np.ones((3, 3, 3)))


def central_mass(diameter_mm):
    def mass(lung, spacing_zyx_mm):
        """A ball at the hilum: around the point of a lung that is nearest to the other."""
        levels = np.flatnonzero(lung.any(axis=(1, 2)))
        z = round(levels[0] + 0.6 * levels.size)
        y, x = (axis.mean() for axis in np.nonzero(lung[z]))
        row = np.flatnonzero(lung[z, round(y)])
        inner = row[np.abs(row - 0.5 * lung.shape[2]).argmin()]
        box, share = ball_share(lung.shape, np.array([z, y, inner]), diameter_mm, spacing_zyx_mm)
        ball = np.zeros(lung.shape, bool)
        ball[box] = share >= 0.5
        return ball

    return mass


LOST = {
    "upper lobe": upper_lobe,
    "upper front": upper_front,
    "central 50 mm": central_mass(50.0),
    "central 110 mm": central_mass(110.0),
}


def segmented(blocks_hu, spacing_zyx_mm):
    return segment_lungs(blocks_hu, spacing_zyx_mm=spacing_zyx_mm, grid_mm=min(spacing_zyx_mm))


def check(blocks_hu, spacing_zyx_mm, sound, part, side):
    lung = (sound.coarse_labels == side) & ~sound.coarse_filled
    lost = LOST[part](lung, spacing_zyx_mm)
    noise = np.random.default_rng(0).normal(0.0, 15.0, blocks_hu.shape)
    with_tissue = np.where(lost, np.maximum(TISSUE_HU + noise, blocks_hu), blocks_hu)
    found = segmented(with_tissue.astype(np.int16), spacing_zyx_mm)
    kept = (found.mask > 0)[lost & lung].mean()
    if kept < 0.8:
        assert "opacified_part" in found.flags
        assert found.verdict == "suspect"


@pytest.fixture(scope="module")
def phantom_blocks():
    phantom = build_scan(7)
    volume_hu, geometry = to_canonical(phantom.volume_hu, phantom.geometry)
    blocks_hu, spacing_zyx_mm = blocks_of(volume_hu, geometry.spacing_zyx_mm)
    return blocks_hu, spacing_zyx_mm, segmented(blocks_hu, spacing_zyx_mm)


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("part", list(LOST))
def test_lost_part_of_a_phantom_is_told(phantom_blocks, part, side):
    check(*phantom_blocks, part, side)


@pytest.fixture(scope="module")
def real_blocks(luna16_sample):
    scan = read_scan(next((luna16_sample / "subset9").glob("*003264.mhd")))
    blocks_hu, spacing_zyx_mm = blocks_of(scan.volume_hu, scan.geometry.spacing_zyx_mm)
    return blocks_hu, spacing_zyx_mm, segmented(blocks_hu, spacing_zyx_mm)


@pytest.mark.realdata
@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("part", list(LOST))
def test_lost_part_of_a_real_lung_is_told(real_blocks, part, side):
    check(*real_blocks, part, side)
