"""Plain CT pictures, worked out by hand on linear ramps."""

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.reports.scan_report import nodule_crops, slab_middle

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


def test_a_slab_gets_the_slice_in_its_middle(ramp):
    slab = SlabGeometry(0, 4, 3, (101.0, 105.0), (2.0, 1.0), (-18.0, -14.0, 103.0))
    picture = slab_middle(ramp, GEOMETRY, slab)
    assert picture.shape == (3, 4)
    # Column 2, row 1, slice 1.5; then 2 columns to the right, 1 row down.
    assert picture[0, 0] == pytest.approx(grey_of(-1000 + 40 + 5 + 15), abs=1)
    assert picture[0, 1] == pytest.approx(grey_of(-1000 + 80 + 5 + 15), abs=1)
    assert picture[1, 0] == pytest.approx(grey_of(-1000 + 40 + 10 + 15), abs=1)
