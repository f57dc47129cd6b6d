import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.semireal.crops import (
    CropFile,
    NoduleCrop,
    faults_of,
    list_crops,
    load_crop,
    measure_crop,
)

LUNG_HU, NODULE_HU, WALL_HU = -850.0, 30.0, 40.0


def crop_of(mask, hu=None, spacing=(1.0, 1.0, 1.0)):
    hu = np.where(mask, NODULE_HU, LUNG_HU) if hu is None else hu
    return NoduleCrop("n", "p", hu.astype(np.float32), mask, spacing)


def ball(radius, shape=(25, 25, 25)):
    grid = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"))
    return (grid**2).sum(axis=0) <= radius**2


def write_volume(path, values, spacing_xyz=(1.0, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing_xyz)
    sitk.WriteImage(image, str(path))


def write_crop(folder, name, values, mask, **kwargs):
    write_volume(folder / "image" / f"{name}.nii.gz", values.astype(np.int16), **kwargs)
    write_volume(folder / "mask" / f"{name}.nii.gz", mask.astype(np.uint8), **kwargs)


def test_a_ball_is_sound_and_has_the_measures_of_a_ball():
    found = measure_crop(crop_of(ball(5.0)))
    # 4/3 pi 5^3 is 524; 515 lattice points lie in the ball of radius 5.
    assert found.voxels == 515
    assert found.diameter_mm == pytest.approx(np.cbrt(6 * 515 / np.pi))
    assert found.elongation == pytest.approx(1.0, abs=0.03)
    # Corners of voxels stick out of the surface; a box has none, see below.
    assert 0.7 < found.solidity < 0.8
    assert (found.background_hu, found.body_hu) == (LUNG_HU, NODULE_HU)
    assert (found.noise_hu, found.attached_share) == (0.0, 0.0)
    assert not found.touches_border
    assert faults_of(found) == ()


def test_elongation_of_a_long_box():
    mask = np.zeros((25, 25, 25), bool)
    mask[11:13, 11:13, 2:23] = True
    # An axis of variance 21^2 / 12 stands for a length of 2 sqrt(5 * 21^2 / 12) = 27.1;
    # 84 voxels have the volume of a ball of 5.43.
    found = measure_crop(crop_of(mask))
    assert found.elongation == pytest.approx(27.11 / 5.434, rel=1e-3)
    assert found.solidity == pytest.approx(1.0)
    assert faults_of(found) == ("elongation above 2",)


def test_three_arms_are_a_branching_leak():
    mask = np.zeros((25, 25, 25), bool)
    mask[12, 12, 2:23] = mask[12, 2:23, 12] = mask[2:23, 12, 12] = True
    assert "solidity below 0.45" in faults_of(measure_crop(crop_of(mask)))


def test_attachment_points_to_the_wall():
    mask = ball(4.0)
    hu = np.where(mask, NODULE_HU, LUNG_HU)
    hu[:, :, 16:] = WALL_HU
    hu[mask] = NODULE_HU
    found = measure_crop(crop_of(mask, hu))
    assert found.attached_zyx == pytest.approx((0.0, 0.0, 1.0), abs=1e-9)
    assert 0.1 < found.attached_share < 0.5
    assert faults_of(found) == ()


def test_a_nodule_in_tissue_all_round_is_buried():
    mask = ball(4.0)
    hu = np.where(ball(7.0), WALL_HU, LUNG_HU)
    assert "buried in tissue" in faults_of(measure_crop(crop_of(mask, hu)))


def test_streaks_show_as_noise():
    mask = ball(4.0)
    hu = np.where(mask, NODULE_HU, LUNG_HU)
    hu[:, :, ::2] -= 150.0  # neighbours differ by 150: 1.4826 * 150 / sqrt(2) = 157 HU
    found = measure_crop(crop_of(mask, hu))
    assert found.noise_hu == pytest.approx(157.25, abs=0.1)
    assert faults_of(found) == ("noise above 80 HU",)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda mask, hu: mask.__setitem__((12, slice(0, 12), 12), True), "mask cut by the border"),
        (lambda mask, hu: mask.__setitem__(slice(0, 8), True), "mask cut by the border"),
        (lambda mask, hu: hu.__setitem__(mask, -700.0), "contrast below 200 HU"),
        (lambda mask, hu: hu.__setitem__(mask, 2500.0), "denser than 1900 HU"),
        (lambda mask, hu: hu.__setitem__(~mask, 0.0), "hardly any lung around"),
    ],
)
def test_each_fault_is_named(change, fault):
    mask = ball(5.0)
    hu = np.where(mask, NODULE_HU, LUNG_HU)
    change(mask, hu)
    assert fault in faults_of(measure_crop(crop_of(mask, hu)))


def test_a_mask_in_two_equal_pieces_is_left_out():
    mask = np.zeros((25, 25, 25), bool)
    mask[8:12, 8:12, 4:8] = mask[8:12, 8:12, 16:20] = True
    found = measure_crop(crop_of(mask))
    assert found.largest_part == 0.5
    assert "mask in pieces" in faults_of(found)


def test_crops_are_listed_and_read(tmp_path):
    mask = ball(5.0)
    write_crop(tmp_path, "a", np.where(mask, 30, -850), mask)
    (tmp_path / "crops.csv").write_text("crop,patient_id,more\na,P1,7\n")
    (file,) = list_crops(tmp_path)
    assert (file.name, file.patient_id, file.label) == ("a", "P1", 1)
    crop = load_crop(file)
    assert crop.mask.sum() == 515
    assert set(np.unique(crop.hu)) == {-850.0, 30.0}


def test_nodules_are_cut_out_of_a_whole_scan_by_their_label(tmp_path):
    labels = np.zeros((50, 70, 70), np.uint8)
    labels[10:14, 10:14, 10:14] = 1
    labels[30:34, 40:46, 40:46] = 2
    write_crop(tmp_path, "scan", np.full(labels.shape, -850), labels)
    (tmp_path / "crops.csv").write_text("crop,patient_id,label\nscan,P1,1\nscan,P1,2\n")
    first, second = (load_crop(file) for file in list_crops(tmp_path))
    assert (first.name, second.name) == ("scan#1", "scan#2")
    assert (first.mask.sum(), second.mask.sum()) == (4 * 4 * 4, 4 * 6 * 6)
    # 20 mm around where there are 20 mm.
    assert first.mask.shape == (34, 34, 34)
    assert second.mask.shape == (40, 46, 46)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("crop,patient_id\na,P1\na,P2\n", "line 3: crop a is there twice"),
        ("crop,patient_id\na,\n", "line 2: crop a has no patient"),
        ("crop,patient_id\nb,P1\n", "image/b: no such file"),
        ("crop,patient_id\n", "names no crop"),
        ("crop\na\n", "no column 'patient_id'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, table, message):
    mask = ball(5.0)
    write_crop(tmp_path, "a", np.where(mask, 30, -850), mask)
    (tmp_path / "crops.csv").write_text(table)
    with pytest.raises(LungDetError, match=message):
        list_crops(tmp_path)


def test_no_table_is_refused(tmp_path):
    with pytest.raises(LungDetError, match="crop,patient_id"):
        list_crops(tmp_path)


def test_a_mask_on_another_grid_is_refused(tmp_path):
    write_volume(tmp_path / "i.nii.gz", np.zeros((4, 4, 4), np.int16))
    write_volume(tmp_path / "m.nii.gz", np.ones((4, 4, 5), np.uint8))
    with pytest.raises(LungDetError, match="grid"):
        load_crop(CropFile("x", "p", tmp_path / "i.nii.gz", tmp_path / "m.nii.gz"))


def test_a_mask_that_lost_its_place_is_refused(tmp_path):
    write_volume(tmp_path / "i.nii.gz", np.zeros((4, 4, 4), np.int16))
    image = sitk.ReadImage(str(tmp_path / "i.nii.gz"))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "i.nii.gz"))
    write_volume(tmp_path / "m.nii.gz", np.ones((4, 4, 4), np.uint8))
    with pytest.raises(LungDetError, match="copy origin and direction"):
        load_crop(CropFile("x", "p", tmp_path / "i.nii.gz", tmp_path / "m.nii.gz"))


def test_an_empty_mask_is_refused(tmp_path):
    write_volume(tmp_path / "i.nii.gz", np.zeros((4, 4, 4), np.int16))
    write_volume(tmp_path / "m.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(LungDetError, match="label 1"):
        load_crop(CropFile("x", "p", tmp_path / "i.nii.gz", tmp_path / "m.nii.gz"))
