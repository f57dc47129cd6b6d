import numpy as np
import pytest
import SimpleITK as sitk
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.datasets.transforms import (
    CLAHE,
    CropToLungs,
    DropPeripheralSlices,
    LoadCTScan,
    MIPSlabs,
    OtsuLungMask,
    ResampleScan,
    WindowHU,
)
from lungdet_mmdet.errors import LungDetError

STEPS = (
    "LoadCTScan", "ResampleScan", "OtsuLungMask", "DropPeripheralSlices", "CropToLungs",
    "WindowHU", "CLAHE", "MIPSlabs",
)  # fmt: skip


def masked_scan() -> dict:
    """Ten slices of 2 mm with lung in slices 3 to 6, rows 5 to 9, columns 10 to 14."""
    mask = np.zeros((10, 30, 40), np.uint8)
    mask[3:7, 5:10, 10:15] = 1
    return {
        "volume": np.arange(12000, dtype=np.int16).reshape(10, 30, 40),
        "lung_mask": mask,
        "geometry": ScanGeometry((10, 30, 40), (2.0, 0.5, 0.8), (100.0, 200.0, 300.0)),
    }


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_registered_with_mmdet(name):
    assert TRANSFORMS.get(name).__module__.startswith("lungdet_mmdet.datasets.transforms.")


def test_loading_gives_the_scan_and_where_it_lies(tmp_path):
    # From air at -1000 to tissue at -80 HU.
    volume = (40 * np.arange(24, dtype=np.int16) - 1000).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.5, 0.6, 2.0))
    sitk.WriteImage(image, str(tmp_path / "1.2.3.mha"))
    results = LoadCTScan()({"scan_path": str(tmp_path / "1.2.3.mha")})
    assert np.array_equal(results["volume"], volume)
    assert results["geometry"].spacing_zyx_mm == pytest.approx((2.0, 0.6, 0.5))
    assert results["seriesuid"] == "1.2.3"
    assert results["scan_flags"] == []


def test_a_scan_in_memory_is_taken_as_it_is():
    geometry = ScanGeometry((8, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    volume = np.linspace(-1000, 100, 16, dtype=np.int16).reshape(8, 1, 2)
    scan = CTScan(volume, geometry, geometry, "1.2.3", ("padding",))
    results = LoadCTScan()({"scan": scan})
    assert results["volume"] is scan.volume_hu
    assert results["scan_flags"] == ["padding"]
    assert "scan" not in results


def test_resampling_takes_geometry_along():
    results = ResampleScan(spacing_zyx_mm=(1.0, None, 0.4))(masked_scan())
    assert results["volume"].shape == (20, 30, 80)
    assert results["geometry"].spacing_zyx_mm == (1.0, 0.5, 0.4)


def test_peripheral_slices_go_and_positions_stay():
    results = DropPeripheralSlices(min_area_share=0.02)(masked_scan())
    assert results["volume"].shape == results["lung_mask"].shape == (4, 30, 40)
    assert results["volume"][0, 0, 0] == 3 * 1200
    assert results["geometry"].origin_xyz_mm == pytest.approx((100.0, 200.0, 306.0))


def test_cropping_keeps_a_rim_and_positions():
    # A rim of 1.2 mm is 3 rows of 0.5 mm and 2 columns of 0.8 mm.
    results = CropToLungs(margin_mm=1.2)(masked_scan())
    assert results["volume"].shape == results["lung_mask"].shape == (10, 11, 9)
    assert results["volume"][0, 0, 0] == 2 * 40 + 8
    assert results["geometry"].size_zyx == (10, 11, 9)
    assert results["geometry"].origin_xyz_mm == pytest.approx((106.4, 201.0, 300.0))


def test_windowing_blackens_outside_the_lungs():
    results = WindowHU()(masked_scan())
    assert results["masked"]
    assert np.all((results["volume"] > 0) == (results["lung_mask"] > 0))


def test_windowing_without_a_mask_keeps_everything():
    results = masked_scan()
    del results["lung_mask"]
    results = WindowHU(apply_mask=False)(results)
    assert not results["masked"]
    assert np.all(results["volume"] > 0)


def test_clahe_works_on_slices_and_after_projection_on_slabs():
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 256, (12, 30, 40)).astype(np.uint8)
    geometry = ScanGeometry((12, 30, 40), (1.25, 0.7, 0.7), (0.0, 0.0, 0.0))
    papers = MIPSlabs()(CLAHE()({"volume": volume, "geometry": geometry, "masked": False}))
    reverse = CLAHE()(MIPSlabs()({"volume": volume, "geometry": geometry, "masked": False}))
    assert papers["slabs"].shape == reverse["slabs"].shape == (2, 30, 40)
    assert reverse["volume"] is volume
    assert not np.array_equal(papers["slabs"], reverse["slabs"])


def test_an_unknown_mask_method_is_refused():
    with pytest.raises(LungDetError, match="method is 'unet'"):
        OtsuLungMask(method="unet")
