"""Plain CT pictures, worked out by hand on linear ramps."""

import cv2
import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.reports.ct_planes import (
    capture_picture,
    hu_of_grey,
    nodule_crops,
    overview,
    stored_slices,
)

GEOMETRY = ScanGeometry((20, 30, 40), (2.0, 1.0, 1.0), (-20.0, -15.0, 100.0))


def grey_of(hu):
    """Lung window: -1350 HU is 0, 150 HU is 255."""
    return (hu + 1350) / 1500 * 255


@pytest.fixture
def ramp():
    """HU is -1000 + 20 x + 5 y + 10 k for column x, row y, slice k."""
    k, y, x = np.mgrid[:20, :30, :40]
    return (-1000 + 20 * x + 5 * y + 10 * k).astype(np.int16)


def test_crops_are_hung_as_radiologists_do(ramp):
    crops = nodule_crops(ramp, GEOMETRY, (0.0, 0.0, 120.0), size_mm=10.0, size_px=5)
    # The centre is column 20, row 15, slice 10.
    for crop in crops.values():
        assert crop.shape == (5, 5)
        assert crop[2, 2] == pytest.approx(grey_of(-425), abs=1)
    # Steps of 2 mm: x goes right by 2 columns, y down by 2 rows, z up by 1 slice.
    assert crops["axial"][2, 3] == pytest.approx(grey_of(-425 + 40), abs=1)
    assert crops["axial"][4, 2] == pytest.approx(grey_of(-425 + 20), abs=1)
    assert crops["coronal"][0, 2] == pytest.approx(grey_of(-425 + 20), abs=1)
    assert crops["coronal"][2, 3] == pytest.approx(grey_of(-425 + 40), abs=1)
    assert crops["sagittal"][2, 4] == pytest.approx(grey_of(-425 + 20), abs=1)


def test_outside_the_scan_is_air(ramp):
    crops = nodule_crops(ramp, GEOMETRY, (500.0, 0.0, 120.0), size_mm=10.0, size_px=5)
    assert np.all(np.abs(crops["axial"] - grey_of(-1000)) <= 1)


def test_an_overview_marks_the_point_on_both_planes(ramp):
    plain = overview(ramp, GEOMETRY, (5.0, 0.0, 120.0), size_px=40)
    marked = overview(ramp, GEOMETRY, (5.0, 0.0, 120.0), size_px=40, mark_mm=4.0)
    assert plain.shape == marked.shape == (40, 80, 3)
    for half in (np.s_[:, :40], np.s_[:, 40:]):
        ys, xs = np.nonzero((plain[half] != marked[half]).any(axis=2))
        # The picture is 40 mm wide, from x -20 on: 5 mm lie at column 25; the ring is around it.
        assert abs(xs.mean() - 25) < 1.5
        assert np.ptp(xs) == np.ptp(ys) > 8


def test_stored_slices_give_back_hounsfield_units():
    # Ramps without noise, from below air to bone.
    volume = np.broadcast_to(np.linspace(-1000, 1500, 512), (3, 64, 512)).astype(np.int16)
    jpegs, quality = stored_slices(volume)
    assert quality == 90
    read = hu_of_grey()[cv2.imdecode(np.frombuffer(jpegs[1], np.uint8), cv2.IMREAD_GRAYSCALE)]
    off = np.abs(read - volume[1])
    assert off[volume[1] < 240].max() <= 16
    assert off.max() <= 50


def test_slices_of_large_scans_are_stored_smaller():
    noise = np.random.default_rng(0).integers(-1000, 1000, (4, 64, 64)).astype(np.int16)
    large, best = stored_slices(noise)
    small, quality = stored_slices(noise, max_bytes=sum(map(len, large)) // 2)
    assert quality < best
    assert sum(map(len, small)) <= sum(map(len, large)) // 2
    assert len(stored_slices(noise, max_bytes=1)[0]) == 4


def test_a_capture_has_place_for_what_is_found_and_for_nothing(ramp):
    none = capture_picture(ramp, GEOMETRY, [], heading="notice", lines=["nothing found"])
    many = [(f"#{n}", (0.0, 0.0, 120.0), 5.0) for n in range(9)]
    some = capture_picture(ramp, GEOMETRY, many, heading="notice", lines=["x" * 150])
    assert none.shape[1:] == some.shape[1:] == (1024, 3)
    # Two lines of text, and one that says how many are not shown.
    assert some.shape[0] == 24 * 5 + 2 * (341 + 24)
