"""The command: what it prints and how it ends."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry


def test_a_series_is_converted_and_a_scout_left_out(repository, tmp_path):
    pytest.importorskip("pydicom")
    from tests.support.dicom_export import write_dicom_series

    for uid, slices in (("1.2.3", 9), ("1.2.4", 2)):
        geometry = ScanGeometry(
            size_zyx=(slices, 4, 4),
            spacing_zyx_mm=(1.0, 1.0, 1.0),
            origin_xyz_mm=(0.0, 0.0, 0.0),
            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        )
        volume = np.full((slices, 4, 4), -1000, dtype=np.int16)
        volume[:, 1:3, 1:3] = 40  # without tissue it is no patient
        write_dicom_series(tmp_path / "in" / uid, volume, geometry, seriesuid=uid)
    command = [sys.executable, "data_prep/convert_dicom.py", str(tmp_path / "in")]
    done = subprocess.run(
        [*command, str(tmp_path / "out"), "--workers", "0"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "1 series done, 0 done before, 0 failed, 1 left out" in done.stdout
    assert "has no annotations.csv" in done.stdout
    assert (tmp_path / "out" / "scans" / "1.2.3.raw").stat().st_size == 9 * 4 * 4 * 2
