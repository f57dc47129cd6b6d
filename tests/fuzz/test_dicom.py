"""Slices of a DICOM series with damaged bytes: the scan, repaired or not, or an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.ct.geometry import ScanGeometry
from tests.fuzz.cases import fuzzed
from tests.fuzz.targets import try_scan
from tests.support.dicom_export import write_dicom_series

pytestmark = pytest.mark.reliability("fuzzing: DICOM headers")

GEOMETRY = ScanGeometry((9, 4, 5), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
# The header has some 1100 bytes, the pixels 40.
PATCHES = st.lists(
    st.tuples(st.integers(132, 1250), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def series(fuzz_dir):
    """The files of a sound series, and their bytes."""
    volume = np.random.default_rng(0).integers(-1000, 400, GEOMETRY.size_zyx).astype(np.int16)
    paths = write_dicom_series(fuzz_dir / "series", volume, GEOMETRY, seriesuid="2.999.1")
    return {path: path.read_bytes() for path in paths}


@fuzzed(share=0.5)
@given(patches=PATCHES, everywhere=st.booleans())
def test_damaged_bytes(series, patches, everywhere):
    for index, (path, content) in enumerate(series.items()):
        damaged = bytearray(content)
        for position, data in patches if everywhere or index == 4 else ():
            damaged[position : position + len(data)] = data
        path.write_bytes(damaged)
    try_scan(next(iter(series)).parent, "DICOM headers")
