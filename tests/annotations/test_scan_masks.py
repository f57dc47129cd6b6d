from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.annotations.scan_masks import masks_of_scan, read_mask_folder
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_mha
from lungdet_mmdet.errors import LungDetError

GRID = ScanGeometry((12, 30, 40), (2.5, 1.0, 1.0), (-10.0, 5.0, 100.0))
# Centre of the voxels below: (3.5, 11.5, 22.5).
TABLE = (Nodule("1.2/0", "1.2", (12.5, 16.5, 108.75), 6.0),)


def labels(dtype=np.uint8):
    volume = np.zeros(GRID.size_zyx, dtype)
    volume[3:5, 10:14, 20:26] = 1
    return volume


def read(folder, volume, geometry=GRID, table=TABLE, **options):
    path = write_mha(folder, "1.2", volume, geometry)
    return masks_of_scan(path, GRID, table, seriesuid="1.2", **options)


def test_a_nodule_of_table_and_mask_is_one(tmp_path):
    masks = read(tmp_path, labels())
    assert list(masks.of_table) == ["1.2/0"]
    assert masks.others == ()
    assert masks.flags == ()


def test_a_nodule_of_the_mask_alone_gets_an_id_and_a_sphere(tmp_path):
    volume = labels()
    volume[9, 2:5, 2:5] = 2
    masks = read(tmp_path, volume)
    ((nodule, found),) = masks.others
    assert nodule.nodule_id == "1.2/mask2"
    assert nodule.centre_xyz_mm == (-7.0, 8.0, 122.5)
    assert nodule.diameter_mm == found.diameter_mm
    assert masks.flags == ("nodule mask 1.2.mha: 1 nodules are not in the table and count",)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nii.gz"])
def test_all_formats_give_the_same_place(tmp_path, suffix):
    image = sitk.GetImageFromArray(labels())
    image.SetSpacing((1.0, 1.0, 2.5))
    image.SetOrigin(GRID.origin_xyz_mm)
    sitk.WriteImage(image, str(tmp_path / f"1.2{suffix}"))
    folder = read_mask_folder(tmp_path)
    masks = masks_of_scan(folder.files["1.2"], GRID, TABLE, seriesuid="1.2")
    assert masks.of_table["1.2/0"].centre_xyz_mm == pytest.approx((12.5, 16.5, 108.75))


def only_flag(masks):
    assert masks.geometry is None
    assert masks.of_table == {}
    (flag,) = masks.flags
    assert flag.startswith("nodule mask not used: ")
    assert "1.2.mha" in flag
    return flag


def test_a_shifted_mask_is_refused_with_its_shift(tmp_path):
    moved = ScanGeometry(GRID.size_zyx, GRID.spacing_zyx_mm, (0.0, 5.0, 100.0))
    flag = only_flag(read(tmp_path, labels(), moved))
    assert "lies (10, 0, 0) mm off; copy origin and direction" in flag


def test_a_shifted_mask_on_another_grid_is_refused_by_the_table(tmp_path):
    moved = ScanGeometry((12, 30, 41), GRID.spacing_zyx_mm, (0.0, 5.0, 100.0))
    flag = only_flag(read(tmp_path, np.pad(labels(), ((0, 0), (0, 0), (0, 1))), moved))
    assert "the nearest is 10.0 mm away" in flag


def three_nodules(shift_px=0):
    """Nodules of 22, 8 and 6 mm, painted so many pixels along x beside where the table has them."""
    grid = ScanGeometry((60, 90, 90), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    places = (((30, 30, 30), 22.0), ((20, 70, 60), 8.0), ((45, 20, 70), 6.0))
    z, y, x = np.indices(grid.size_zyx)
    volume = np.zeros(grid.size_zyx, np.uint8)
    table = []
    for number, ((cz, cy, cx), diameter) in enumerate(places):
        away = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx - shift_px) ** 2
        volume[away <= (diameter / 2) ** 2] = number + 1
        table.append(Nodule(f"1.2/{number}", "1.2", (cx, cy, cz), diameter))
    return grid, volume, tuple(table)


def test_labels_shifted_within_the_scans_grid_are_refused_although_a_large_nodule_overlaps(
    tmp_path,
):
    # 10 mm lie within the radius of the largest: without a look at all three it would count.
    grid, volume, table = three_nodules(shift_px=10)
    path = write_mha(tmp_path, "1.2", volume, grid)
    masks = masks_of_scan(path, grid, table, seriesuid="1.2")
    assert "(10.0, 0.0, 0.0) mm off those of the table; correct the mask's origin" in only_flag(
        masks
    )
    grid, volume, table = three_nodules()
    path = write_mha(tmp_path, "1.2", volume, grid)
    assert len(masks_of_scan(path, grid, table, seriesuid="1.2").of_table) == 3


def test_a_mask_of_another_patient_is_refused(tmp_path):
    far = ScanGeometry((12, 30, 41), GRID.spacing_zyx_mm, (500.0, 5.0, 100.0))
    flag = only_flag(read(tmp_path, np.pad(labels(), ((0, 0), (0, 0), (0, 1))), far))
    assert "belongs to another scan" in flag


def test_probabilities_are_refused(tmp_path):
    flag = only_flag(read(tmp_path, 0.7 * labels(np.float32)))
    assert "48 values are not whole numbers, e.g. 0.7" in flag
    assert "store integers" in flag


def test_whole_numbers_in_floats_are_labels(tmp_path):
    assert list(read(tmp_path, labels(np.float32)).of_table) == ["1.2/0"]


def test_five_hundred_labels_are_refused(tmp_path):
    volume = np.arange(np.prod(GRID.size_zyx), dtype=np.int16).reshape(GRID.size_zyx) % 501
    assert "500 labels" in only_flag(read(tmp_path, volume))


def test_a_damaged_file_is_refused(tmp_path):
    path = write_mha(tmp_path, "1.2", labels(), GRID)
    path.write_bytes(path.read_bytes()[:-20])
    masks = masks_of_scan(path, GRID, TABLE, seriesuid="1.2")
    only_flag(masks)


def test_an_empty_mask_says_so(tmp_path):
    masks = read(tmp_path, np.zeros(GRID.size_zyx, np.uint8))
    assert masks.flags == (
        "nodule mask 1.2.mha is empty: the table's spheres are used; give the labels anew",
    )


def test_parts_and_far_centres_are_flagged(tmp_path):
    volume = labels()
    volume[9, 2, 2] = 1
    table = (Nodule("1.2/0", "1.2", (8.5, 16.5, 108.75), 12.0),)
    masks = read(tmp_path, volume, table=table, ratings={1: {"texture": 5.0}})
    parts, away = masks.flags
    assert parts == "nodule mask 1.2.mha: label 1 is in 2 parts"
    assert "mm from the table's 12.0 mm nodule: look at it" in away


def test_a_nodule_without_a_mask_is_counted(tmp_path):
    far = Nodule("1.2/1", "1.2", (-8.0, 8.0, 125.0), 5.0)
    masks = read(tmp_path, labels(), table=(*TABLE, far))
    assert masks.flags == ("nodule mask 1.2.mha: 1 of the table's 2 nodules have no mask",)


def test_folder_with_labels_of_the_readers(tmp_path):
    write_mha(tmp_path / "masks", "1.2", labels(), GRID)
    names = "subtlety,internal_structure,calcification,sphericity,margin,lobulation,spiculation"
    (tmp_path / "nodules.csv").write_text(
        f"seriesuid,label,readers,{names},texture,malignancy\n1.2,1,4,5,1,6,4,4,2,1.5,,3.25\n"
    )
    (tmp_path / "patients.csv").write_text("seriesuid,patient_id\n1.2,P\n")
    folder = read_mask_folder(tmp_path)
    assert folder.files == {"1.2": tmp_path / "masks" / "1.2.mha"}
    ratings = folder.ratings["1.2"][1]
    assert (ratings["malignancy"], ratings["readers"]) == (3.25, 4.0)
    assert "texture" not in ratings
    assert folder.patients == tmp_path / "patients.csv"


def test_two_masks_of_one_series_are_refused(tmp_path):
    write_mha(tmp_path, "1.2", labels(), GRID)
    (tmp_path / "1.2.nrrd").touch()
    with pytest.raises(LungDetError, match=r"1\.2 has two nodule masks"):
        read_mask_folder(tmp_path)


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(LungDetError, match="no nodule mask"):
        read_mask_folder(tmp_path)
    with pytest.raises(LungDetError, match="no such folder"):
        read_mask_folder(tmp_path / "missing")


def dicom_seg(folder: Path) -> Path:
    import highdicom as hd
    import pydicom

    from tests.support.dicom_export import write_dicom_series

    hu = np.zeros(GRID.size_zyx, np.int16)
    images = write_dicom_series(folder / "ct", hu, GRID, seriesuid="1.2.3")
    evidence = [pydicom.dcmread(path) for path in images]
    code = hd.sr.CodedConcept("27925004", "SCT", "Nodule")
    described = hd.seg.SegmentDescription(
        1, "nodule", code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    segmentation = hd.seg.Segmentation(
        source_images=evidence,
        pixel_array=labels(),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[described],
        series_instance_uid="1.2.4",
        series_number=2,
        sop_instance_uid="1.2.4.1",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    (folder / "seg").mkdir()
    segmentation.save_as(folder / "seg" / "any name.dcm")
    return folder / "seg"


def test_dicom_segmentation_is_found_by_its_series(tmp_path):
    folder = read_mask_folder(dicom_seg(tmp_path))
    assert list(folder.files) == ["1.2.3"]
    masks = masks_of_scan(folder.files["1.2.3"], GRID, TABLE, seriesuid="1.2.3")
    found = masks.of_table["1.2/0"]
    assert found.centre_xyz_mm == pytest.approx((12.5, 16.5, 108.75))
    assert found.mask.sum() == 48


def test_another_dicom_file_is_left_out_with_a_word(tmp_path):
    folder = dicom_seg(tmp_path)
    (folder / "image.dcm").write_bytes((tmp_path / "ct" / "0000.dcm").read_bytes())
    found = read_mask_folder(folder)
    assert list(found.files) == ["1.2.3"]
    assert "Modality is 'CT'" in found.warnings[0]


@pytest.mark.parametrize(
    "name", [".1.2.lungdet-abc.partial/1.2.mha", "._1.2.mha", "@eaDir/1.2.mha"]
)
def test_what_killed_runs_and_systems_leave_is_no_mask(tmp_path, name):
    path = write_mha(tmp_path / "masks", "1.2", labels(), GRID)
    ghost = tmp_path / "masks" / name
    ghost.parent.mkdir(exist_ok=True)
    ghost.write_bytes(b"ObjectType")
    assert read_mask_folder(tmp_path).files == {"1.2": path}
