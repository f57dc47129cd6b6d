import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import CTScan, check_hounsfield
from lungdet_mmdet.errors import LungDetError


def scan_of(values):
    volume = np.array(values, dtype=np.int16).reshape(1, 1, -1)
    geometry = ScanGeometry(volume.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    return CTScan(volume, geometry, geometry, "s")


def test_lungs_and_air_are_ct():
    check_hounsfield(scan_of([-1000, -850, 40, 700] * 100), source="a.nii")


@pytest.mark.parametrize(
    "values",
    [
        [0, 120, 900, 400],  # MR
        [24, 174, 1064, 1724],  # CT without its intercept of -1024
        [-3024, -2000, 40, 60],  # padding alone is no air
    ],
)
def test_what_holds_no_air_is_refused(values):
    low, high = min(values), max(values)
    with pytest.raises(LungDetError, match=rf"a\.nii: values run from {low} to {high} .*intercept"):
        check_hounsfield(scan_of(values * 100), source="a.nii")


def test_air_alone_is_refused():
    with pytest.raises(LungDetError, match=r"a\.nii: values run from -1024 to -990 .*nobody"):
        check_hounsfield(scan_of([-1024, -1000, -990] * 100), source="a.nii")
