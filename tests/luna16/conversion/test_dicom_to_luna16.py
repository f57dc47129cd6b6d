"""A DICOM tree becomes a LUNA16 folder; what does not is listed with the reason."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from lungdet_mmdet.annotations.tables import read_patients, write_patient_table
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.conversion import convert_dicom_tree
from lungdet_mmdet.runs.workplace import process_pool

FIRST, SECOND = "1.2.826.1.1", "1.2.826.1.2"
ANNOTATIONS = f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{FIRST},0,0,0,5\n"


def convert(tree, out, **options):
    return convert_dicom_tree(tree, out, process_pool(0), **{"tell": lambda line: None, **options})


def test_every_series_comes_out_with_its_voxels_and_place(tree, tmp_path, volumes, geometry):
    summary = convert(tree, tmp_path / "out")
    assert [s.seriesuid for s in summary.converted] == [FIRST, SECOND]
    assert summary.exit_code == 0
    for uid, volume in volumes.items():
        scan = read_scan(tmp_path / "out" / "scans" / f"{uid}.mhd")
        np.testing.assert_array_equal(scan.volume_hu, volume)
        np.testing.assert_allclose(scan.geometry.origin_xyz_mm, geometry.origin_xyz_mm)
        np.testing.assert_allclose(scan.geometry.spacing_zyx_mm, geometry.spacing_zyx_mm)
        assert scan.seriesuid == uid


def test_what_is_no_chest_ct_is_left_out_with_the_reason(tree, tmp_path):
    summary = convert(tree, tmp_path / "out")
    (reject,) = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert (reject["seriesuid"], reject["stage"]) == ("1.2.826.9", "unsuitable")
    assert reject["reason"].startswith("2 slices with a position")
    assert any(line.startswith("left out: 1.2.826.9") for line in summary.lines())
    assert "interrupted" not in summary.lines()[-1]
    summary.run.interrupted_by = 15
    assert "interrupted: the same command goes on" in summary.lines()[-1]


def test_a_damaged_series_is_rejected_and_the_others_converted(tree, tmp_path):
    for name in ("0003.dcm", "0004.dcm", "0005.dcm", "0006.dcm"):
        (tree / "p1" / "ct" / name).unlink()
    summary = convert(tree, tmp_path / "out")
    assert summary.exit_code == 1
    assert [s.seriesuid for s in summary.converted] == [SECOND]
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert {r["seriesuid"] for r in rejects} == {FIRST, "1.2.826.9"}
    assert not (tmp_path / "out" / "scans" / f"{FIRST}.mhd").exists()


def test_a_folder_that_may_not_be_searched_is_a_failure(tree, tmp_path, monkeypatch):
    walk = os.walk

    def closed(top, **options):
        yield from walk(top, **options)
        if "onerror" in options:
            options["onerror"](PermissionError(13, "Permission denied", f"{top}/closed"))

    monkeypatch.setattr(os, "walk", closed)
    summary = convert(tree, tmp_path / "out")
    (failure,) = summary.failures
    assert "closed: cannot be searched (Permission denied)" in failure.reason
    assert len(summary.converted) == 2
    assert summary.exit_code == 1


def test_a_second_run_converts_only_what_is_not_there(tree, tmp_path):
    out = tmp_path / "out"
    convert(tree, out)
    accounts = (out / "converted.json").read_bytes()
    (out / "scans" / f"{FIRST}.raw").write_bytes(b"cut short")
    summary = convert(tree, out)
    assert [s.seriesuid for s in summary.converted] == [FIRST]
    assert summary.skipped == [SECOND]
    assert (out / "converted.json").read_bytes() == accounts


def test_tables_are_copied_and_name_the_subset(tree, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "annotations.csv").write_text(ANNOTATIONS)
    (tables / "subset_of_series.csv").write_text(f"seriesuid,subset\n{FIRST},4\n")
    out = tmp_path / "out"
    convert(tree, out, tables=tables)
    assert (out / "subset4" / f"{FIRST}.mhd").is_file()
    assert (out / "scans" / f"{SECOND}.mhd").is_file()
    assert (out / "annotations.csv").read_text() == ANNOTATIONS


def test_only_the_wanted_series_and_those_not_found(tree, tmp_path):
    summary = convert(tree, tmp_path / "out", only=[SECOND, "1.2.3.4"])
    assert [s.seriesuid for s in summary.converted] == [SECOND]
    assert summary.not_found == ["1.2.3.4"]
    assert summary.exit_code == 1


def test_patients_are_written_when_asked_for(tree, tmp_path):
    convert(tree, tmp_path / "plain")
    assert not (tmp_path / "plain" / "patients.csv").exists()
    out = tmp_path / "out"
    convert(tree, out, only=[FIRST], keep_patient_ids=True)
    convert(tree, out, keep_patient_ids=True)
    # The phantom's patient is the end of its series UID.
    assert read_patients(out / "patients.csv") == {FIRST: FIRST[-16:], SECOND: SECOND[-16:]}


def test_patients_of_series_that_an_earlier_run_converted_are_written(tree, tmp_path):
    out = tmp_path / "out"
    convert(tree, out)
    # A slice that nothing can be read from does not say whose the series is; the next one does.
    (tree / "p1" / "ct" / "0000.dcm").write_bytes(b"")
    summary = convert(tree, out, keep_patient_ids=True)
    assert summary.skipped == [FIRST, SECOND]
    assert read_patients(out / "patients.csv") == {FIRST: FIRST[-16:], SECOND: SECOND[-16:]}


def test_a_run_over_other_series_keeps_what_was_repaired_in_earlier_ones(tree, tmp_path):
    out = tmp_path / "out"
    convert(tree, out)
    accounts = (out / "converted.json").read_bytes()
    convert(tree / "p1", out)
    convert(tree, out, only=[SECOND])
    assert (out / "converted.json").read_bytes() == accounts


def test_two_processes_write_the_same_bytes(tree, tmp_path):
    convert(tree, tmp_path / "one", compress=True)
    convert_dicom_tree(
        tree,
        tmp_path / "two",
        process_pool(2),
        workers=2,
        compress=True,
        tell=lambda line: None,
    )
    names = sorted(p.name for p in (tmp_path / "one" / "scans").iterdir())
    assert names == [f"{uid}.{suffix}" for uid in (FIRST, SECOND) for suffix in ("mhd", "zraw")]
    for name in names:
        one, two = (tmp_path / side / "scans" / name for side in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_uid_that_leads_elsewhere_writes_nothing(tmp_path, geometry, volumes):
    pytest.importorskip("pydicom")
    from tests.support.dicom_export import write_dicom_series

    write_dicom_series(tmp_path / "dicom", volumes[FIRST], geometry, seriesuid="1.2.3")
    for path in (tmp_path / "dicom").iterdir():
        # Same length, so that the file stays DICOM.
        path.write_bytes(path.read_bytes().replace(b"\x05\x001.2.3", b"\x05\x00../xy"))
        path.write_bytes(path.read_bytes().replace(b"\x06\x001.2.3\x00", b"\x06\x00../xyz"))
    summary = convert(tmp_path / "dicom", tmp_path / "deep" / "out")
    assert summary.converted == []
    assert "cannot name a file" in summary.failures[0].reason
    assert list(tmp_path.rglob("*.mhd")) == []


def test_folders_that_cannot_be_used(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LungDetError, match="no DICOM images"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(LungDetError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(LungDetError, match="lies inside"):
        convert(tree, tree / "out")


def test_a_patient_without_an_id_is_a_digest(tree, tmp_path):
    import pydicom

    for path in tree.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.PatientBirthDate = "", "19500101"
        dataset.PatientName = f"Mustermann^{dataset.SeriesInstanceUID[-4:]}"
        dataset.save_as(path)
    convert(tree, tmp_path / "out", keep_patient_ids=True)
    told = (tmp_path / "out" / "patients.csv").read_text()
    assert "Mustermann" not in told
    assert "1950" not in told
    patients = read_patients(tmp_path / "out" / "patients.csv")
    assert set(patients) == {FIRST, SECOND}
    assert len(set(patients.values())) == 2


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+A1", "-A1", "@SUM(A1)"])
def test_no_patient_id_is_a_formula(text, tmp_path):
    path = tmp_path / "patients.csv"
    write_patient_table(path, {"1.2": text, "1.3": "LIDC-IDRI-0001", "1.4": "-1"})
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert rows[1:] == [["1.2", f"'{text}"], ["1.3", "LIDC-IDRI-0001"], ["1.4", "-1"]]
    assert read_patients(path)["1.2"] == text


def test_voxels_stay_in_the_order_of_the_images(tmp_path, volumes, geometry):
    """Contours of readers are columns and rows of the images: of a prone patient, too."""
    from tests.support.dicom_export import write_dicom_series

    prone = replace(geometry, direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    write_dicom_series(tmp_path / "dicom", volumes[FIRST], prone, seriesuid=FIRST)
    convert(tmp_path / "dicom", tmp_path / "out")
    image = sitk.ReadImage(str(tmp_path / "out" / "scans" / f"{FIRST}.mhd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volumes[FIRST])
    assert image.GetDirection() == prone.direction
    before, after = (
        read_scan(tmp_path / "dicom"),
        read_scan(tmp_path / "out/scans" / f"{FIRST}.mhd"),
    )
    np.testing.assert_array_equal(before.volume_hu, after.volume_hu)
    np.testing.assert_allclose(before.geometry.origin_xyz_mm, after.geometry.origin_xyz_mm)
