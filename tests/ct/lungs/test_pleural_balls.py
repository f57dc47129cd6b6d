"""Balls of soft tissue set on the pleura: how much of them the mask keeps."""

import pytest

from benchmarks.lung_mask import DIRECTIONS, blocks_of, kept_shares
from lungdet_mmdet.ct.geometry import to_canonical
from lungdet_mmdet.ct.lungs.mask import segment_lungs
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.phantom.scan import build_scan

LEAST = {"mediastinal": 0.6, "base": 0.6, "apex": 0.8}
"""Everywhere else .85; diaphragm and apex have no wall beside them that shows the surface."""


def poorly_kept(blocks_hu, spacing_zyx_mm, diameter_mm):
    kept = kept_shares(blocks_hu, spacing_zyx_mm, diameter_mm)
    assert set(kept) == set(DIRECTIONS)
    return {place: both for place, both in kept.items() if min(both) < LEAST.get(place, 0.85)}


@pytest.mark.realdata
@pytest.mark.parametrize("diameter_mm", [20, 30])
@pytest.mark.parametrize(("subset", "ending"), [("subset3", "104919"), ("subset9", "003264")])
def test_lesions_on_the_pleura_are_kept(luna16_sample, subset, ending, diameter_mm):
    scan = read_scan(next((luna16_sample / subset).glob(f"*{ending}.mhd")))
    blocks_hu, spacing_zyx_mm = blocks_of(scan.volume_hu, scan.geometry.spacing_zyx_mm)
    sound = segment_lungs(blocks_hu, spacing_zyx_mm=spacing_zyx_mm)
    assert sound.filled_ml < 0.02 * 1000 * sound.volume_l
    assert not poorly_kept(blocks_hu, spacing_zyx_mm, diameter_mm)


@pytest.mark.parametrize("diameter_mm", [20, 30])
def test_lesions_on_the_pleura_of_a_phantom_are_kept(diameter_mm):
    phantom = build_scan(7)
    volume_hu, geometry = to_canonical(phantom.volume_hu, phantom.geometry)
    blocks_hu, spacing_zyx_mm = blocks_of(volume_hu, geometry.spacing_zyx_mm)
    assert not poorly_kept(blocks_hu, spacing_zyx_mm, diameter_mm)
