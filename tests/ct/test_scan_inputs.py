"""What users name on the command line."""

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan_inputs import list_inputs
from tests.support.dicom_export import write_dicom_series

GEOMETRY = ScanGeometry((9, 4, 5), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
VOLUME = np.zeros(GEOMETRY.size_zyx, dtype=np.int16)


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path))
    return path


def names(listed):
    return [scan.name for scan in listed.scans]


def test_a_folder_is_searched_without_luna16_masks(tmp_path):
    for name in (
        "b.mhd",
        "sub/a.nii.gz",
        "seg-lungs-LUNA16/b.mhd",
        "nodule_masks/b.mha",
        "sub/c.nrrd",
    ):
        write(tmp_path / name)
    listed = list_inputs([tmp_path])
    assert names(listed) == ["b", "a", "c"]
    assert listed.failures == []


def test_scans_below_a_folder_named_as_masks_are_no_masks(tmp_path):
    write(tmp_path / "lung_masks" / "scans" / "a.mha")
    assert names(list_inputs([tmp_path / "lung_masks" / "scans"])) == ["a"]
    (failure,) = list_inputs([tmp_path / "lung_masks"]).failures
    assert "no scan in this folder" in failure.reason


def test_results_among_scans_are_no_scans_and_are_told(tmp_path):
    write(tmp_path / "a.nii.gz")
    write(tmp_path / "results" / "a" / "candidates_boxes.nii.gz")
    (tmp_path / "results" / "a" / "candidates.json").write_text("{}")
    # What lies below a result is not of it.
    write(tmp_path / "results" / "a" / "more" / "b.nii.gz")
    listed = list_inputs([tmp_path])
    assert names(listed) == ["a", "b"]
    (note,) = listed.notes
    assert f"1 folders with a result (candidates.json) passed over, e.g. {tmp_path}" in note


def test_a_text_file_names_inputs_beside_it(tmp_path):
    write(tmp_path / "scans" / "one.mha")
    (tmp_path / "list.txt").write_bytes(b"# comment\r\n\r\nscans/one.mha\r\nscans/two.mha\r\n")
    listed = list_inputs([tmp_path / "list.txt"])
    assert names(listed) == ["one"]
    assert [f.seriesuid for f in listed.failures] == ["scans/two.mha"]


def test_bad_inputs_do_not_hide_good_ones(tmp_path):
    good = write(tmp_path / "good.mha")
    (tmp_path / "image.dcm").write_text("")
    (tmp_path / "empty").mkdir()
    listed = list_inputs(
        [tmp_path / "none.mhd", tmp_path / "image.dcm", tmp_path / "empty", good, good]
    )
    assert names(listed) == ["good"]
    reasons = [failure.reason for failure in listed.failures]
    assert "no such file" in reasons[0]
    assert "name the folder, not one image" in reasons[1]
    assert "no scan in this folder" in reasons[2]


def test_scans_of_one_name_get_folders_of_their_own(tmp_path):
    paths = [write(tmp_path / part / "scan.mha") for part in ("p1", "p2")]
    first, second = names(list_inputs(paths))
    assert first != second
    assert first.startswith("scan-")
    assert names(list_inputs(paths[::-1])) == [second, first]


@pytest.mark.parametrize(
    ("stem", "name"), [("..evil", "evil"), ("a b;c", "a_b_c"), ("\u00e4", "_"), ("...", "scan")]
)
def test_folder_names_are_plain(tmp_path, stem, name):
    assert names(list_inputs([write(tmp_path / f"{stem}.mha")])) == [name]


def test_every_study_gives_its_thinnest_series(tmp_path):
    pytest.importorskip("pydicom")
    thick = ScanGeometry((9, 4, 5), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for folder, uid, geometry in (("p1", "2.999.1", GEOMETRY), ("p2", "2.999.2", thick)):
        write_dicom_series(tmp_path / folder, VOLUME, geometry, seriesuid=uid)
    # A thicker series of the first study.
    for path in write_dicom_series(tmp_path / "p1b", VOLUME, thick, seriesuid="2.999.3"):
        import pydicom

        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.PatientID = "2.999.1.0.1", "2.999.1"
        dataset.save_as(path)
    listed = list_inputs([tmp_path])
    assert names(listed) == ["2.999.1", "2.999.2"]
    (note,) = listed.notes
    assert "* 2.999.1  9 images, 2.00 mm" in note
    assert "  2.999.3  9 images, 3.00 mm" in note
    assert names(list_inputs([tmp_path], series_uid="2.999.3")) == ["2.999.3"]
    (failure,) = list_inputs([tmp_path], series_uid="1.2").failures
    assert "no series 1.2" in failure.reason


def test_a_series_beyond_reading_is_named_and_the_one_beside_it_read(tmp_path):
    for name in ("good", "bad"):
        write_dicom_series(tmp_path / name, VOLUME, GEOMETRY, seriesuid=f"1.2.{len(name)}")
    files = sorted((tmp_path / "bad").iterdir())
    for path in files:
        # Half of the pixels go; the header still says which series it was.
        path.write_bytes(path.read_bytes()[:-20])
    listed = list_inputs([tmp_path])
    assert names(listed) == ["1.2.4"]
    (lost,) = listed.failures
    assert lost.seriesuid == "1.2.3"
    assert str(files[0]) in lost.reason
    assert "export the series again" in lost.reason


def test_the_digest_follows_the_pixels_and_not_the_place(tmp_path):
    one = list_inputs([write(tmp_path / "a" / "s.mhd")]).scans[0]
    two = list_inputs([write(tmp_path / "b" / "s.mhd")]).scans[0]
    assert one.content_digest() == two.content_digest()
    raw = tmp_path / "b" / "s.raw"
    raw.write_bytes(b"\1" + raw.read_bytes()[1:])
    assert one.content_digest() != two.content_digest()
