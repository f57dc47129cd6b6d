"""DICOM series: what scanners and archives deliver, repaired or refused."""

import shutil

import numpy as np
import pytest

from lungdet_mmdet.ct.dicom.header import is_sharp_kernel
from lungdet_mmdet.ct.dicom.reading import read_dicom_folder
from lungdet_mmdet.ct.dicom.series import choose_series, find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from tests.support.dicom_export import write_dicom_series

pydicom = pytest.importorskip("pydicom")

UID = "2.999.1.5"
GEOMETRY = ScanGeometry((10, 6, 8), (2.5, 0.75, 0.5), (-100.0, -50.0, 200.0))


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(-1000, 400, GEOMETRY.size_zyx, dtype=np.int16)


@pytest.fixture
def folder(tmp_path, volume):
    write_dicom_series(tmp_path / "series", volume, GEOMETRY, seriesuid=UID)
    return tmp_path / "series"


def edit(path, **tags):
    """Change tags of a written slice."""
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def edit_all(folder, **tags):
    for path in folder.glob("*.dcm"):
        edit(path, **tags)


def test_values_and_places_come_back(folder, volume):
    scan = read_scan(folder)
    assert np.array_equal(scan.volume_hu, volume)
    assert scan.seriesuid == UID
    assert scan.flags == ()
    assert scan.geometry == GEOMETRY


def test_signed_values_without_intercept(tmp_path, volume):
    write_dicom_series(tmp_path, volume, GEOMETRY, seriesuid=UID, intercept=0, signed=True)
    assert np.array_equal(read_scan(tmp_path).volume_hu, volume)


def test_slope_and_intercept_are_applied_slice_by_slice(folder, volume):
    # Stored value of 24 HU is 1048; with slope 0.5 and intercept -524 it is 0 HU.
    edit(folder / "0003.dcm", RescaleSlope="0.5", RescaleIntercept="-524")
    expected = np.rint((volume[3].astype(float) + 1024) * 0.5 - 524)
    scan = read_scan(folder)
    assert np.array_equal(scan.volume_hu[3], expected)
    assert np.array_equal(scan.volume_hu[4], volume[4])


def test_file_names_and_instance_numbers_do_not_order_slices(folder, volume):
    for index, name in enumerate(sorted(p.name for p in folder.glob("*.dcm"))):
        edit(folder / name, InstanceNumber=100 - index)
    (folder / "0000.dcm").rename(folder / "zzz")
    assert np.array_equal(read_scan(folder).volume_hu, volume)


def test_backward_axes_give_the_same_canonical_scan(tmp_path, volume):
    # x and y run backwards: the normal still points to the head.
    flipped = ScanGeometry(
        GEOMETRY.size_zyx, GEOMETRY.spacing_zyx_mm, (-96.5, -46.25, 200.0),
        (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )  # fmt: skip
    write_dicom_series(tmp_path, volume[:, ::-1, ::-1], flipped, seriesuid=UID)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.volume_hu, volume)
    assert scan.geometry == GEOMETRY
    assert scan.file_geometry == flipped


def test_compressed_pixels_are_read(folder):
    from pydicom.uid import RLELossless

    shutil.rmtree(folder)
    volume = np.arange(480, dtype=np.int16).reshape(GEOMETRY.size_zyx)
    write_dicom_series(folder, volume, GEOMETRY, seriesuid=UID)
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(read_scan(folder).volume_hu, volume)


def test_a_missing_slice_is_interpolated_and_flagged(folder, volume):
    (folder / "0004.dcm").unlink()
    scan = read_scan(folder)
    assert scan.geometry == GEOMETRY
    mean = (volume[3].astype(float) + volume[5]) / 2
    assert np.abs(scan.volume_hu[4] - mean).max() <= 0.5
    assert np.array_equal(scan.volume_hu[6], volume[6])
    assert scan.flags == ("slice distance changes from 2.50 to 5.00 mm: interpolated to 2.50 mm",)


def test_a_long_gap_is_refused_with_both_ends(tmp_path):
    geometry = ScanGeometry((14, 4, 4), (2.5, 1.0, 1.0), (0.0, 0.0, 0.0))
    volume = np.zeros(geometry.size_zyx, dtype=np.int16)
    for path in write_dicom_series(tmp_path, volume, geometry, seriesuid=UID)[5:9]:
        path.unlink()
    with pytest.raises(LungDetError, match=r"gap of 12\.5 mm between 0004\.dcm and 0009\.dcm"):
        read_scan(tmp_path)


def test_uneven_distances_are_interpolated_to_the_usual_one(folder):
    # Values are heights, so every interpolated slice must hold its own height.
    heights = np.array([0, 2, 4, 6, 8, 10, 12, 15, 18, 21])
    volume = np.broadcast_to((10 * heights)[:, None, None], GEOMETRY.size_zyx).astype(np.int16)
    shutil.rmtree(folder)
    for path, height in zip(
        write_dicom_series(folder, volume, GEOMETRY, seriesuid=UID), heights, strict=True
    ):
        edit(path, ImagePositionPatient=[-100, -50, float(height)])
    scan = read_scan(folder)
    assert scan.geometry.spacing_zyx_mm[0] == 2.0
    assert scan.volume_hu[:, 0, 0].tolist() == [20 * i for i in range(11)]
    assert "interpolated" in scan.flags[0]


def test_copies_of_a_slice_are_left_out(folder, volume):
    shutil.copy(folder / "0002.dcm", folder / "copy.dcm")
    scan = read_scan(folder)
    assert np.array_equal(scan.volume_hu, volume)
    assert scan.flags == ("1 duplicated slices left out",)


def second_acquisition(folder, volume, count):
    """Add other images of the first `count` places."""
    paths = write_dicom_series(folder / "more", volume + 7, GEOMETRY, seriesuid=UID)
    for index, path in enumerate(paths):
        if index < count:
            edit(path, SOPInstanceUID=f"{UID}.9{index}")
            path.rename(folder / f"more{index}.dcm")
    shutil.rmtree(folder / "more")


def test_different_images_of_one_place_are_refused(folder, volume):
    second_acquisition(folder, volume, 10)
    with pytest.raises(LungDetError, match="10 positions hold several different images"):
        read_scan(folder)


def test_of_two_acquisitions_the_larger_is_taken(folder, volume):
    second_acquisition(folder, volume, 4)
    for path in folder.glob("more*.dcm"):
        edit(path, AcquisitionNumber=2)
    scan = read_scan(folder)
    assert np.array_equal(scan.volume_hu, volume)
    assert "4 images left out" in scan.flags[0]


def test_a_tilted_gantry_is_straightened(tmp_path):
    # Every slice is shifted by 1.5 pixels (1.2 mm) along y against the one below: a bright column
    # that is straight in the patient runs down the stored rows.
    geometry = ScanGeometry((10, 30, 12), (2.0, 0.8, 0.8), (0.0, 0.0, 0.0))
    volume = np.full(geometry.size_zyx, -1000, dtype=np.int16)
    for index in range(10):
        volume[index, 20 - 2 * (index // 2) - index // 2 : 22 - index, 5] = 200
    for index, path in enumerate(write_dicom_series(tmp_path, volume, geometry, seriesuid=UID)):
        edit(path, ImagePositionPatient=[0.0, 1.2 * index, 2.0 * index])
    scan = read_scan(tmp_path)
    assert scan.flags == ("gantry tilt of 31.0 degrees straightened",)
    for index in range(0, 10, 2):
        # Even slices move by whole pixels, so their values stay exact.
        world = np.array([4.0, 1.2 * index + 0.8 * (20 - 3 * index // 2), 2.0 * index])
        z, y, x = np.rint(scan.geometry.world_to_voxel(world)).astype(int)
        assert scan.volume_hu[z, y, x] == 200
        assert scan.volume_hu[z, y, x + 1] == -1000
    # Nothing of the slices is cut away: 30 rows and 9 shifts of 1.5 rows.
    assert scan.volume_hu.shape == (10, 44, 12)


def test_of_equally_thin_series_the_smoother_kernel_is_chosen(folder, volume):
    grid = ScanGeometry((10, 6, 8), (1.25, 0.75, 0.5), (0.0, 0.0, 0.0))
    for uid, kernel in (("2.999.2", "B70f"), ("2.999.3", "B30f")):
        write_dicom_series(folder / kernel, volume, grid, seriesuid=uid)
        edit_all(folder / kernel, PatientID="one", ConvolutionKernel=kernel)
    edit_all(folder, PatientID="one")
    assert choose_series(find_dicom_series(folder), source="x").uid == "2.999.3"


@pytest.mark.parametrize(
    ("kernel", "is_sharp"),
    [("B70f", 1), ("Bl57d\\3", 1), ("B30f", 0), ("Br40", 0), ("LUNG", 1), ("BONEPLUS", 1),
     ("STANDARD", 0), ("FC51", 1), ("FC08", 0), ("D", 1), ("B", 0), ("", 0)],
)  # fmt: skip
def test_sharp_kernels(kernel, is_sharp):
    assert is_sharp_kernel(kernel) == bool(is_sharp)


def test_the_thinnest_axial_ct_is_chosen(folder, volume):
    thin = ScanGeometry((10, 6, 8), (1.25, 0.75, 0.5), (0.0, 0.0, 0.0))
    write_dicom_series(folder / "thin", volume, thin, seriesuid="2.999.2")
    sagittal = ScanGeometry(
        (10, 6, 8), (0.5, 0.75, 0.5), (0.0, 0.0, 0.0), (0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0)
    )
    write_dicom_series(folder / "sagittal", volume, sagittal, seriesuid="2.999.3")
    write_dicom_series(folder / "few", volume[:3], ScanGeometry(
        (3, 6, 8), (0.5, 0.75, 0.5), (0.0, 0.0, 0.0)), seriesuid="2.999.4")  # fmt: skip
    (folder / "notes.txt").write_text("no DICOM")
    for part in (folder, *folder.iterdir()):
        edit_all(part, PatientID="one")
    found = find_dicom_series(folder)
    assert [series.uid for series in found] == [UID, "2.999.2", "2.999.3", "2.999.4"]
    assert choose_series(found, source="x").uid == "2.999.2"
    assert read_dicom_folder(folder, series_uid=UID).seriesuid == UID
    with pytest.raises(LungDetError, match=r"series 2\.999\.3 cannot be used: not axial"):
        read_dicom_folder(folder, series_uid="2.999.3")
    with pytest.raises(LungDetError, match=r"no series 9\.9 here(.|\n)*2\.999\.4  3 images"):
        read_dicom_folder(folder, series_uid="9.9")


def test_projections_thick_slices_and_parts_are_not_the_thinnest(tmp_path):
    def written(uid, size_z, step_mm, thickness_mm, kind="AXIAL"):
        shape = (size_z, 6, 8)
        place = ScanGeometry(shape, (step_mm, 0.75, 0.5), (0.0, 0.0, 0.0))
        folder = tmp_path / uid
        write_dicom_series(folder, np.zeros(shape, np.int16), place, seriesuid=uid)
        kinds = ["DERIVED", "SECONDARY", kind]
        edit_all(folder, PatientID="one", SliceThickness=thickness_mm, ImageType=kinds)

    written("2.999.5", 130, 1.0, 1.0)
    written("2.999.1", 130, 1.0, 10.0, "MIP")
    written("2.999.2", 180, 0.7, 5.0)
    written("2.999.3", 9, 0.6, 0.6)
    written("2.999.4", 200, 5.0, 5.0)  # down to the pelvis
    found = find_dicom_series(tmp_path)
    assert choose_series(found, source="x").uid == "2.999.5"
    alone = [series for series in found if series.uid == "2.999.1"]
    assert choose_series(alone, source="x").uid == "2.999.1"


def test_voxels_of_uneven_slices_are_not_guessed(folder):
    (scan,) = list_inputs([folder]).scans
    assert scan.grid().size_zyx == GEOMETRY.size_zyx
    (folder / "0004.dcm").unlink()
    (scan,) = list_inputs([folder]).scans
    assert scan.load().volume_hu.shape == GEOMETRY.size_zyx  # filled in, and flagged
    with pytest.raises(LungDetError, match=r"slices lie 2\.50 to 5\.00 mm apart"):
        scan.grid()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR"}, "modality MR, not CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial"),
    ],
)
def test_what_is_no_axial_ct_is_refused(folder, tags, message):
    edit_all(folder, **tags)
    with pytest.raises(LungDetError, match=message):
        read_scan(folder)


def test_slices_without_position_are_refused(folder):
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    with pytest.raises(LungDetError, match="0 slices with a position"):
        read_scan(folder)


def test_two_volumes_in_one_series_are_refused(folder):
    edit(folder / "0005.dcm", PixelSpacing=[0.6, 0.6])
    with pytest.raises(LungDetError, match=r"0005\.dcm has .* two volumes in one series"):
        read_scan(folder)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_cut_off_file_is_named(folder, is_compressed):
    from pydicom.uid import RLELossless

    path = folder / "0006.dcm"
    if is_compressed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LungDetError, match=r"0006\.dcm: .*cut off"):
        read_scan(folder)


def test_a_short_last_slice_is_not_filled_up(tmp_path, volume):
    # On slices this large GDCM reads a cut-off file without a word.
    geometry = ScanGeometry((10, 64, 64), (2.5, 1.0, 1.0), (0.0, 0.0, 0.0))
    pixels = np.resize(volume, geometry.size_zyx)
    path = write_dicom_series(tmp_path, pixels, geometry, seriesuid=UID)[-1]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(LungDetError, match=r"0009\.dcm: .*cut off"):
        read_scan(tmp_path)


def test_reports_beside_the_images_are_no_damage(folder):
    dataset = pydicom.dcmread(folder / "0001.dcm")
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPInstanceUID, dataset.Modality = f"{UID}.77", "SR"
    dataset.save_as(folder / "report.dcm")
    assert read_scan(folder).flags == ()


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("not DICOM")
    with pytest.raises(LungDetError, match="no DICOM images here"):
        read_scan(tmp_path)
