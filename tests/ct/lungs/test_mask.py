import numpy as np
import pytest

from lungdet_mmdet.annotations.slab_boxes import nodule_coverage
from lungdet_mmdet.annotations.tables import read_nodules
from lungdet_mmdet.ct.lungs.mask import segment_lungs, segment_with_fallback
from lungdet_mmdet.ct.lungs.parts import RIGHT
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.resample import resample_volume
from lungdet_mmdet.errors import LungDetError

SPACING = (3.0, 3.0, 3.0)


def chest(lung_hu=-850):
    """Tiny chest: 40 slices of 80 x 110 at 3 mm, two lungs of 30 x 36 x 28 in a box of tissue."""
    volume = np.full((40, 80, 110), -1000, np.int16)
    volume[:, 10:70, 10:100] = 40
    volume[5:35, 20:56, 20:48] = lung_hu
    volume[5:35, 20:56, 62:90] = lung_hu
    return volume


LUNG_L = 30 * 36 * 28 * 27 / 1e6


def luna16_mask():
    mask = np.zeros((40, 80, 110), np.uint8)
    mask[5:35, 20:56, 20:48] = 4
    mask[5:35, 20:56, 62:90] = 3
    return mask


def test_box_lungs_to_the_voxel():
    found = segment_lungs(chest(), spacing_zyx_mm=SPACING, margin_mm=0.0)
    np.testing.assert_array_equal(found.mask, luna16_mask() > 0)
    assert found.lung_volumes_l == pytest.approx((LUNG_L, LUNG_L))
    assert (found.method, found.verdict, found.flags) == ("otsu", "ok", ("no_windpipe",))


def test_erosion_costs_no_volume():
    volumes = {
        segment_lungs(chest(), spacing_zyx_mm=SPACING, erosion_mm=mm).volume_l
        for mm in (0.0, 3.0, 9.0)
    }
    assert len(volumes) == 1


def test_float_volume_and_nan_padding():
    volume = chest().astype(np.float32)
    volume[:, :5] = np.nan
    found = segment_lungs(volume, spacing_zyx_mm=SPACING, margin_mm=0.0)
    np.testing.assert_array_equal(found.mask, luna16_mask() > 0)
    assert found.flags == ("padding", "no_windpipe")


def test_pleural_nodule_needs_the_closing():
    volume = chest()
    z, y, x = np.ogrid[:40, :80, :110]
    ball = ((z - 20) ** 2 + (y - 38) ** 2 + (x - 22) ** 2) * 9 <= 7.5**2
    volume[ball] = 40
    nodule = ((20, 38, 22), 15.0, SPACING)
    closed = segment_lungs(volume, spacing_zyx_mm=SPACING)
    assert nodule_coverage(closed.mask, *nodule) >= 0.9
    bare = segment_lungs(volume, spacing_zyx_mm=SPACING, closing_mm=0.0, fill_bays=False)
    assert nodule_coverage(bare.mask, *nodule) < 0.6


@pytest.mark.parametrize("value", [-3024, -1000, -850, 0, 1000])
def test_constant_volume_is_never_emptied(value):
    found = segment_with_fallback(np.full((5, 30, 30), value, np.int16), spacing_zyx_mm=SPACING)
    assert found.mask.any()
    assert found.method == "body"
    assert found.verdict == "implausible"
    assert "fallback_body" in found.flags


def test_otsu_threshold_out_of_range_is_clamped_and_named():
    volume = chest()
    volume[:, 60:70, 10:100] = -150
    volume[volume == -1000] = -3024  # leaves lung and tissue only
    volume[volume == -850] = -300
    found = segment_lungs(volume, spacing_zyx_mm=SPACING, otsu_clamp_hu=(-550.0, -350.0))
    assert found.threshold_hu == -350.0
    assert "otsu_clamped" in found.flags


def test_dense_lungs_fall_back_to_the_looser_otsu():
    volume = chest(lung_hu=-320)
    found = segment_with_fallback(volume, spacing_zyx_mm=SPACING)
    assert found.method == "otsu-loose"
    assert found.flags[-1] == "fallback_otsu-loose"
    assert found.verdict == "suspect"
    assert found.volume_l == pytest.approx(2 * LUNG_L, rel=0.01)


def test_luna16_mask_comes_before_the_looser_otsu():
    found = segment_with_fallback(
        chest(lung_hu=-320), spacing_zyx_mm=SPACING, luna16_mask=luna16_mask()
    )
    assert (found.method, found.flags[-1]) == ("luna16", "fallback_luna16")


def test_luna16_mask_when_asked_for():
    found = segment_with_fallback(
        chest(), spacing_zyx_mm=SPACING, luna16_mask=luna16_mask(), prefer="luna16", margin_mm=0.0
    )
    assert (found.method, found.verdict, found.flags) == ("luna16", "ok", ())
    np.testing.assert_array_equal(found.mask, luna16_mask() > 0)


@pytest.mark.parametrize("mask", [None, np.zeros((40, 80, 110), np.uint8)])
def test_missing_or_empty_luna16_mask_falls_back_to_otsu(mask):
    found = segment_with_fallback(
        chest(), spacing_zyx_mm=SPACING, luna16_mask=mask, prefer="luna16"
    )
    assert (found.method, found.flags[-1]) == ("otsu", "fallback_otsu")


def test_body_fallback_holds_the_patient_and_not_the_room():
    volume = np.where(chest() == -850, np.int16(40), chest())
    found = segment_with_fallback(volume, spacing_zyx_mm=SPACING)
    assert found.method == "body"
    assert found.volume_l == 0.0
    assert not (found.mask[volume != 40]).any()
    assert found.mask[volume == 40].mean() > 0.999  # its corners are rounded


@pytest.mark.parametrize(
    ("volume", "spacing", "message"),
    [
        (np.zeros((4, 4), np.int16), SPACING, r"\(4, 4\)"),
        (np.zeros((0, 4, 4), np.int16), SPACING, r"\(0, 4, 4\)"),
        (np.zeros((4, 4, 4), bool), SPACING, "bool"),
        (np.zeros((4, 4, 4), np.int16), (1.0, 0.0, 1.0), "spacing"),
        (np.zeros((4, 4, 4), np.int16), (1.0, float("nan"), 1.0), "spacing"),
    ],
)
def test_unusable_input(volume, spacing, message):
    with pytest.raises(LungDetError, match=message):
        segment_with_fallback(volume, spacing_zyx_mm=spacing)


def test_unknown_method_and_wrong_shape():
    with pytest.raises(LungDetError, match="unet"):
        segment_with_fallback(chest(), spacing_zyx_mm=SPACING, prefer="unet")
    with pytest.raises(LungDetError, match=r"\(1, 2, 3\)"):
        segment_with_fallback(
            chest(), spacing_zyx_mm=SPACING, luna16_mask=np.zeros((1, 2, 3), np.uint8)
        )


REAL = [
    ("subset3", "104919", (2.81, 2.54)),
    ("subset9", "003264", (2.82, 3.11)),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("subset", "ending", "careful_l"), REAL)
@pytest.mark.parametrize("spacing", [None, (1.25, 0.7, 0.7)], ids=["native", "resampled"])
def test_real_scans(luna16_sample, subset, ending, careful_l, spacing):
    path = next((luna16_sample / subset).glob(f"*{ending}.mhd"))
    scan = read_scan(path)
    volume, geometry = scan.volume_hu, scan.geometry
    if spacing is not None:
        volume, geometry = resample_volume(volume, geometry, spacing)
    found = segment_with_fallback(volume, spacing_zyx_mm=geometry.spacing_zyx_mm)
    assert (found.method, found.verdict, found.n_lungs) == ("otsu", "ok", 2)
    assert found.lung_volumes_l == pytest.approx(careful_l, rel=0.03)
    mask = found.mask
    nodules = read_nodules(luna16_sample / "annotations.csv", known_series=[path.stem]).rows
    for nodule in nodules:
        centre = geometry.world_to_voxel(np.array(nodule.centre_xyz_mm))
        assert nodule_coverage(mask, centre, nodule.diameter_mm, geometry.spacing_zyx_mm) >= 0.98


def test_bowel_gas_is_flagged_as_abdomen():
    volume = np.full((60, 80, 110), -1000, np.int16)
    volume[:, 10:70, 10:100] = 40
    volume[20:30, 20:30, 20:30] = volume[20:32, 20:30, 70:80] = -900  # 27 and 32 ml in 8.7 litres
    found = segment_lungs(volume, spacing_zyx_mm=SPACING)
    assert "abdomen" in found.flags
    assert found.verdict != "ok"


def test_sides_come_from_the_spine_where_the_body_is_cut():
    volume = chest()
    volume[:, 58:68, 50:60] = 300
    volume = volume[:, :, :62]  # the right lung, and the spine
    found = segment_lungs(volume, spacing_zyx_mm=SPACING)
    assert "one_lung" in found.flags
    assert set(np.unique(found.coarse_labels)) == {0, RIGHT}
