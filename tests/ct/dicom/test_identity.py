"""Whose images a series holds: a series UID alone does not tell."""

import numpy as np
import pytest

from lungdet_mmdet.ct.dicom.reading import read_dicom_folder
from lungdet_mmdet.ct.dicom.series import find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan_inputs import list_inputs
from lungdet_mmdet.errors import LungDetError
from tests.support.dicom_export import write_dicom_series

pydicom = pytest.importorskip("pydicom")

pytestmark = pytest.mark.reliability("a name or UID taken for unique: DICOM series")

UID = "2.999.5"
SIZE = (10, 6, 8)
STEP_MM = 2.5


def series_of(folder, value, *, first_mm=0.0, **tags):
    """Ten slices of one value, with other tags than the phantom's."""
    geometry = ScanGeometry(SIZE, (STEP_MM, 0.75, 0.5), (0.0, 0.0, first_mm))
    paths = write_dicom_series(folder, np.full(SIZE, value, np.int16), geometry, seriesuid=UID)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{abs(value)}"
        for name, text in tags.items():
            setattr(dataset, name, text)
        dataset.save_as(path)
    return paths


def put_together(folder, *, first_mm, **tags):
    """Two sets of slices under one series UID in one folder."""
    series_of(folder, 10, PatientID="one")
    for path in series_of(folder / "more", 20, first_mm=first_mm, **{"PatientID": "one", **tags}):
        path.rename(folder / f"b{path.name}")


@pytest.mark.parametrize("first_mm", [STEP_MM / 2, STEP_MM * SIZE[0]], ids=["between", "on_top"])
@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({"PatientID": "two"}, "2 patients"),
        ({"StudyInstanceUID": "1.2"}, "2 studies"),
        ({"FrameOfReferenceUID": "1.2"}, "2 frames of reference"),
    ],
)
def test_images_of_two_under_one_uid_are_refused_by_name(tmp_path, first_mm, tags, what):
    put_together(tmp_path, first_mm=first_mm, **tags)
    said = rf"series 2\.999\.5 holds images of {what} \(e\.g\. b?0000\.dcm and b?0000\.dcm\)"
    with pytest.raises(LungDetError, match=said):
        read_dicom_folder(tmp_path)
    listed = list_inputs([tmp_path])
    assert listed.scans == []
    assert [what in f.reason for f in listed.failures] == [True]


def test_patients_without_id_are_told_apart_by_name_and_birth_date(tmp_path):
    series_of(tmp_path, 10, PatientID="", PatientName="A")
    for path in series_of(tmp_path / "more", 20, first_mm=1.0, PatientID="", PatientName="B"):
        path.rename(tmp_path / f"b{path.name}")
    with pytest.raises(LungDetError, match="2 patients"):
        read_dicom_folder(tmp_path)


def test_one_uid_in_two_folders_of_two_patients_is_two_scans(tmp_path):
    series_of(tmp_path / "a", 10, PatientID="one")
    series_of(tmp_path / "b", 20, PatientID="two")
    listed = list_inputs([tmp_path])
    assert listed.failures == []
    assert [scan.load().volume_hu.max() for scan in listed.scans] == [10, 20]
    assert len({scan.name for scan in listed.scans}) == 2
    (failure,) = list_inputs([tmp_path], series_uid=UID).failures
    assert "is there 2 times" in failure.reason


def test_a_folder_of_two_patients_is_no_single_scan(tmp_path):
    series_of(tmp_path / "a", 10, PatientID="one")
    series_of(tmp_path / "b", 20, PatientID="two")
    with pytest.raises(LungDetError, match="CT series of 2 patients; name the folder of one"):
        read_dicom_folder(tmp_path)


def test_a_localizer_may_have_a_frame_of_its_own(tmp_path):
    paths = series_of(tmp_path, 10)
    dataset = pydicom.dcmread(paths[0])
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.FrameOfReferenceUID, dataset.SOPInstanceUID = "1.2", "1.2.3"
    dataset.save_as(tmp_path / "scout.dcm")
    assert len(find_dicom_series(tmp_path)) == 1
    assert read_dicom_folder(tmp_path).volume_hu.shape == SIZE


def test_rounding_of_the_orientation_does_not_part_a_series(tmp_path):
    # Cosines on both sides of 0.005, where two digits would make two groups of five slices.
    for index, path in enumerate(series_of(tmp_path, 10)):
        dataset = pydicom.dcmread(path)
        sine = 0.005 + (1e-5 if index % 2 else -1e-5)
        cosine = (1 - sine**2) ** 0.5
        dataset.ImageOrientationPatient = [1, 0, 0, 0, round(cosine, 6), round(sine, 6)]
        dataset.save_as(path)
    scan = read_dicom_folder(tmp_path)
    assert scan.volume_hu.shape == SIZE
    assert scan.flags == ()
