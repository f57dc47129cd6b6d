"""DICOM trees of small phantoms."""

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry

UIDS = ("1.2.826.1.1", "1.2.826.1.2")


@pytest.fixture
def geometry():
    return ScanGeometry(
        size_zyx=(14, 6, 8),
        spacing_zyx_mm=(2.5, 0.7, 0.7),
        origin_xyz_mm=(-10.0, -20.0, -30.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    return {uid: rng.integers(-1000, 400, (14, 6, 8)).astype(np.int16) for uid in UIDS}


@pytest.fixture
def tree(tmp_path, geometry, volumes):
    """Two CT series in folders of their own, the second split over two; a localizer; a note."""
    pytest.importorskip("pydicom")
    from tests.support.dicom_export import write_dicom_series

    root = tmp_path / "dicom"
    write_dicom_series(root / "p1" / "ct", volumes[UIDS[0]], geometry, seriesuid=UIDS[0])
    paths = write_dicom_series(root / "p2" / "a", volumes[UIDS[1]], geometry, seriesuid=UIDS[1])
    (root / "p2" / "b").mkdir()
    for path in paths[::2]:
        path.rename(root / "p2" / "b" / path.name)
    few = ScanGeometry(
        size_zyx=(2, 6, 8),
        spacing_zyx_mm=geometry.spacing_zyx_mm,
        origin_xyz_mm=geometry.origin_xyz_mm,
        direction=geometry.direction,
    )
    write_dicom_series(root / "p1" / "scout", volumes[UIDS[0]][:2], few, seriesuid="1.2.826.9")
    (root / "p1" / "LICENSE").write_text("not DICOM")
    return root
